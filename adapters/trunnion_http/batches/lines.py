"""Read the lines of a batch file, and write those of its results.

``POST /v1/batches`` and ``trunnion run-batch`` (:mod:`trunnion_batch`, which stands on this package) read the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import msgspec

PATHS: Final = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/score",
    "/v1/rerank",
    "/v1/classify",
)
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """Hold one request: its line's number from 1, the caller's name for it, where it goes, and its body as JSON."""

    number: int
    custom_id: str
    url: str
    body: bytes


class LineError(Exception):
    """Say what is wrong with a line; it names the line's number.

    Attributes:
        number: The line's number, from 1.
        custom_id: The caller's name for it, where that could be read.
        code: ``invalid_json``, ``invalid_line``, ``unsupported_url`` or ``duplicate_custom_id``.
        param: The field of the line at fault; None where it is the line itself.
        fault: What is wrong, without the line's number.
    """

    def __init__(
        self,
        number: int,
        message: str,
        *,
        code: str = "invalid_line",
        custom_id: str | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(f"line {number}: {message}")
        self.number = number
        self.custom_id = custom_id
        self.code = code
        self.param = param
        self.fault = message


def parse_line(data: bytes, number: int, urls: Collection[str] = PATHS) -> BatchLine:
    """Return the request of a line; ``urls`` are those it may name. Raises :class:`LineError`."""
    try:
        values = _decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise LineError(number, f"not valid JSON: {error}", code="invalid_json") from error
    if not isinstance(values, dict):
        raise LineError(
            number, 'must be an object like {"custom_id": ..., "method": "POST", "url": ..., "body": {...}}'
        )
    custom_id = values.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        message = f"custom_id must be a string that is not empty, not {_short(custom_id)}"
        raise LineError(number, message, param="custom_id")
    if values.get("method", "POST") != "POST":
        message = f'method must be "POST", not {_short(values["method"])}'
        raise LineError(number, message, custom_id=custom_id, param="method")
    url = values.get("url")
    if not isinstance(url, str) or url not in urls:
        allowed = f"one of {', '.join(urls)}" if len(urls) > 1 else ", ".join(urls)
        message = f"url must be {allowed}, not {_short(url)}"
        raise LineError(number, message, code="unsupported_url", custom_id=custom_id, param="url")
    body = values.get("body")
    if not isinstance(body, dict):
        raise LineError(number, f"body must be an object, not {_short(body)}", custom_id=custom_id, param="body")
    if body.get("stream"):
        message = "body.stream has no place in a batch; leave it out"
        raise LineError(number, message, custom_id=custom_id, param="body.stream")
    return BatchLine(number=number, custom_id=custom_id, url=url, body=_encode(body))


def fingerprint(text: str) -> int:
    """Return 64 bits that stand for a string: half a million custom_ids are then told apart in a few megabytes."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def result_line(line: BatchLine, status: int, body: bytes, request_id: str) -> bytes:
    """Return the line of a request that was answered, well or not."""
    response = {"status_code": status, "request_id": request_id, "body": msgspec.Raw(body)}
    return _encode({"id": f"batch_req_{request_id}", "custom_id": line.custom_id, "response": response, "error": None})


def error_line(error: LineError) -> bytes:
    """Return the line of what was no request."""
    told: dict[str, Any] = {"code": error.code, "message": _readable(str(error)), "line": error.number}
    custom_id = None if error.custom_id is None else _readable(error.custom_id)
    return _encode({"id": f"batch_line_{error.number}", "custom_id": custom_id, "response": None, "error": told})


def undone_line(number: int, custom_id: str, code: str, message: str) -> bytes:
    """Return the line of a request that was never asked."""
    told = {"code": code, "message": message}
    return _encode({"id": f"batch_line_{number}", "custom_id": custom_id, "response": None, "error": told})


def _readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
