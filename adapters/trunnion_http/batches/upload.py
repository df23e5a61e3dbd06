"""Read a multipart upload: the file straight to disk, the small fields beside it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from trunnion.errors import InvalidArgument
from trunnion_http.call import Call, ClientGone
from trunnion_http.errors import body_too_slow
from trunnion_http.multipart import Form, FormShape, form_boundary

from .files import FileStore, discard

if TYPE_CHECKING:
    from trunnion_http.settings import HTTPSettings

FIELDS: Final = ("file", "purpose", "expires_after[anchor]", "expires_after[seconds]")
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
    boundary = form_boundary(call.headers.get(b"content-type", b""))
    if boundary is None:
        raise InvalidArgument("send a form: `Content-Type: multipart/form-data; boundary=...` with file and purpose")
    declared = call.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > limit + _OVERHEAD:
        raise file_too_large(limit)
    form = Form(boundary, FormShape(fields=FIELDS, largest=limit, too_large=file_too_large))
    part = await asyncio.to_thread(store.begin)
    try:
        await _read(call, settings, form, part)
        upload = Upload(Path(part.name), form.named(), form.fields)
        await asyncio.to_thread(part.close)
    except BaseException:
        await asyncio.shield(asyncio.to_thread(discard, part))
        raise
    return upload


async def _read(call: Call, settings: HTTPSettings, form: Form, part: IO[bytes]) -> None:
    more = True
    while more:
        try:
            async with asyncio.timeout(settings.body_timeout):
                message = await call.receive()
        except TimeoutError as error:
            raise body_too_slow(settings.body_timeout) from error
        if message["type"] != "http.request":
            raise ClientGone
        form.feed(message.get("body", b""))
        more = message.get("more_body", False)
        if form.held and (form.held >= _BUFFER or not more):
            await asyncio.to_thread(part.write, form.take())
