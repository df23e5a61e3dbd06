"""Read a multipart upload: the file straight to disk, the small fields beside it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from trunnion.errors import InvalidArgument
from trunnion_http.call import Call, ClientGone
from trunnion_http.errors import body_too_slow

from .files import FileStore, discard

if TYPE_CHECKING:
    from trunnion_http.settings import HTTPSettings

FIELDS: Final = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
_LONGEST_FIELD: Final = 1024
_LONGEST_NAME: Final = 512
_BUFFER: Final = 1 << 20
"""Bytes that are held before they are written."""
_OVERHEAD: Final = 1 << 16
"""Bytes that a form may have beside its file."""


def file_too_large(limit: int) -> InvalidArgument:
    """Return the 413 for a file beyond ``limit`` bytes."""
    msg = f"the file exceeds {limit} bytes; split it, or raise batches.max_file_bytes"
    return InvalidArgument(msg, param="file", http_status=413, code="request_too_large")


@dataclass(slots=True)
class Upload:
    """Hold what a form said.

    Attributes:
        part: Where the file's bytes are.
        filename: What the client calls the file.
        fields: The other fields.
    """

    part: Path
    filename: str
    fields: dict[str, str] = field(default_factory=dict)


class _Form:
    """Take the parser's events: hold fields, and the file's bytes until they are written."""

    def __init__(self, limit: int) -> None:
        self.fields: dict[str, bytes] = {}
        self.filename: str | None = None
        self.pieces: list[bytes] = []
        self.held = 0
        self.whole = False
        self._limit = limit
        self._size = 0
        self._header = self._value = b""
        self._disposition = b""
        self._name = ""

    def on_part_begin(self) -> None:
        self._disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise InvalidArgument("each part of the form needs `Content-Disposition: form-data; name=...`")
        self._name = name.decode("latin-1")[:100]
        if self._name not in FIELDS:
            msg = f"unrecognized request argument: {self._name!r}; known: {', '.join(FIELDS)}"
            raise InvalidArgument(msg, param="file" if self._name.startswith("file") else None)
        if self._name in self.fields or (self._name == "file" and self.filename is not None):
            raise InvalidArgument(f"the form has {self._name} twice; send it once", param=self._name)
        if self._name == "file":
            given = options.get(b"filename")
            if given is None:
                raise InvalidArgument("file must be a file, with a filename; this is a plain field", param="file")
            self.filename = given.decode("utf-8", "replace")[:_LONGEST_NAME]
        else:
            self.fields[self._name] = b""

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file":
            self._size += end - start
            if self._size > self._limit:
                raise file_too_large(self._limit)
            self.held += end - start
            self.pieces.append(data[start:end])
            return
        value = self.fields[self._name] + data[start:end]
        if len(value) > _LONGEST_FIELD:
            raise InvalidArgument(f"{self._name} is longer than {_LONGEST_FIELD} bytes", param=self._name)
        self.fields[self._name] = value

    def on_end(self) -> None:
        self.whole = True

    def named(self) -> str:
        """Return the file's name, once all was read. Raises :class:`InvalidArgument` if that was not all."""
        if not self.whole:
            raise InvalidArgument("the form ends before its last boundary; was it cut short?")
        if self.filename is None:
            raise InvalidArgument("missing required parameter: file", param="file")
        return self.filename

    def take(self) -> bytes:
        """Return the bytes that are held, and hold them no more."""
        data = b"".join(self.pieces)
        self.pieces, self.held = [], 0
        return data


async def read_upload(call: Call, settings: HTTPSettings, store: FileStore, limit: int) -> Upload:
    """Read the form of an upload. The caller adds the file to the store, or removes it.

    Args:
        call: The request.
        settings: ``body_timeout`` is the time that may pass between two pieces.
        store: Where the file goes.
        limit: Most bytes of the file.

    Raises:
        InvalidArgument: It is no form, or not a good one; too large (413) or too slow (408).
        ClientGone: The client hung up.
    """
    kind, options = parse_options_header(call.headers.get(b"content-type", b"").decode("latin-1"))
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidArgument("send a form: `Content-Type: multipart/form-data; boundary=...` with file and purpose")
    declared = call.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit + _OVERHEAD:
        raise file_too_large(limit)
    form = _Form(limit)
    part = await asyncio.to_thread(store.begin)
    try:
        await _read(call, settings, form, boundary, part)
        fields = {name: value.decode("utf-8", "replace") for name, value in form.fields.items()}
        upload = Upload(Path(part.name), form.named(), fields)
        await asyncio.to_thread(part.close)
    except BaseException:
        await asyncio.shield(asyncio.to_thread(discard, part))
        raise
    return upload


async def _read(call: Call, settings: HTTPSettings, form: _Form, boundary: bytes, part: IO[bytes]) -> None:
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.on_part_begin,
                "on_header_field": form.on_header_field,
                "on_header_value": form.on_header_value,
                "on_header_end": form.on_header_end,
                "on_headers_finished": form.on_headers_finished,
                "on_part_data": form.on_part_data,
                "on_end": form.on_end,
            },
        )
        more = True
        while more:
            try:
                async with asyncio.timeout(settings.body_timeout):
                    message = await call.receive()
            except TimeoutError as error:
                raise body_too_slow(settings.body_timeout) from error
            if message["type"] != "http.request":
                raise ClientGone
            parser.write(message.get("body", b""))
            more = message.get("more_body", False)
            if form.held and (form.held >= _BUFFER or not more):
                await asyncio.to_thread(part.write, form.take())
    except FormParserError as error:
        raise InvalidArgument(f"the form cannot be read: {error}") from error
