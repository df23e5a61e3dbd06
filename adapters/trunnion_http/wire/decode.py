"""Decode bodies, and turn msgspec's complaints into errors that name the field."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from trunnion.errors import InvalidArgument

from .requests import ChatBody, CompletionBody, DetokenizeBody, EmbeddingBody, TokenizeBody

T = TypeVar("T", bound=msgspec.Struct)

_COMPRESSED: Final = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")
"""How gzip and zstd begin."""
_AT: Final = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(.*)`$", re.DOTALL)
_MISSING: Final = re.compile(r"^Object missing required field `(.*)`$", re.DOTALL)


def decoder(body: type[T]) -> Callable[[bytes], T]:
    """Return a function from bytes to ``body`` that raises :class:`InvalidArgument` naming the field."""
    decode = msgspec.json.Decoder(body).decode
    known = tuple(f.encode_name for f in msgspec.structs.fields(body))

    def checked(data: bytes) -> T:
        try:
            return decode(data)
        except msgspec.ValidationError as error:
            raise _invalid(str(error), known) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise not_json(data, error) from error
        except RecursionError as error:
            msg = "the request body is nested too deeply"
            raise InvalidArgument(msg) from error

    return checked


def not_json(data: bytes, error: Exception) -> InvalidArgument:
    """Return the error of a body that is no JSON, in words that help whoever sent it."""
    if not data.strip():
        return InvalidArgument("the request body is empty; send a JSON object")
    if data.startswith(_COMPRESSED):
        return InvalidArgument("the request body is compressed, which is not supported; send the JSON as it is")
    try:
        data.decode()
    except UnicodeDecodeError as wrong:
        return InvalidArgument(f"the request body is not UTF-8: byte {wrong.start} is 0x{data[wrong.start]:02x}")
    return InvalidArgument(f"the request body is not valid JSON: {error}")


def convert(value: Any, kind: type[T], where: str) -> T:
    """Return a decoded part of a body as ``kind``. Raises :class:`InvalidArgument`; ``param`` begins with ``where``."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        known = tuple(f.encode_name for f in msgspec.structs.fields(kind))
        raise _invalid(str(error), known, where) from error


def unknown_argument(param: str, near: Sequence[str]) -> InvalidArgument:
    """Return the error of a field that is not known; ``near``: known ones that it may be a misspelling of."""
    hint = f"did you mean {near[0]!r}?" if near else "remove it"
    return InvalidArgument(f"unrecognized request argument: {param}; {hint}", param=param)


def _invalid(complaint: str, known: tuple[str, ...], where: str = "") -> InvalidArgument:
    match = _AT.match(complaint)
    what, path = (match["what"], match["path"] or "") if match else (complaint, "")
    param = path.removeprefix("key` in `").removeprefix("$").removeprefix(".").replace("[...]", "")
    plain = not param
    if where:
        param = f"{where}.{param}" if param else where
    if unknown := _UNKNOWN.match(what):
        param = f"{param}.{unknown[1]}" if param else unknown[1]
        return unknown_argument(param, difflib.get_close_matches(unknown[1], known, n=1) if plain else [])
    if missing := _MISSING.match(what):
        param = f"{param}.{missing[1]}" if param else missing[1]
        return InvalidArgument(f"missing required parameter: {param}", param=param)
    what = what[:1].lower() + what[1:]
    if not param:
        return InvalidArgument(f"the request body is not what this URL takes: {what}")
    return InvalidArgument(f"{param}: {what}", param=param)


decode_chat: Final = decoder(ChatBody)
decode_completion: Final = decoder(CompletionBody)
decode_embedding: Final = decoder(EmbeddingBody)
decode_tokenize: Final = decoder(TokenizeBody)
decode_detokenize: Final = decoder(DetokenizeBody)
