"""Answer ``/v1/files`` and ``/v1/batches``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from trunnion.errors import InvalidArgument, NotFound
from trunnion_http.call import Call
from trunnion_http.wire import encode

from .bodies import decode_batch, kept_seconds, window_seconds
from .files import PREFIX as FILE
from .files import FileMeta, FileStore, no_file
from .folders import PREFIX as BATCH
from .folders import new_batch_id
from .keeper import Keeper, owner_of
from .query import listed, read_page
from .state import State
from .upload import read_upload

if TYPE_CHECKING:
    from trunnion_http.app import App

Handler = Callable[["App", Keeper, Call, str], Awaitable[None]]

_PURPOSE: Final = "batch"
_BLOCK: Final = 1 << 18
_BODY: Final = "http.response.body"


async def create_file(app: App, keeper: Keeper, call: Call, _: str) -> None:
    """Answer ``POST /v1/files``."""
    store = keeper.files(owner_of(call))
    upload = await read_upload(call, app.settings, store, keeper.settings.max_file_bytes)
    try:
        purpose = upload.fields.get("purpose")
        if purpose is None:
            raise InvalidArgument("missing required parameter: purpose", param="purpose")
        if purpose != _PURPOSE:
            msg = f"purpose must be {_PURPOSE!r}, not {purpose!r}: files are kept here for batches alone"
            raise InvalidArgument(msg, param="purpose")
        seconds = kept_seconds(upload.fields.get("expires_after[anchor]"), upload.fields.get("expires_after[seconds]"))
        kept = keeper.settings.retention if seconds is None else seconds
        meta = await asyncio.to_thread(store.add, upload.part, filename=upload.filename, purpose=purpose, seconds=kept)
    finally:
        await asyncio.to_thread(Path(upload.part).unlink, missing_ok=True)
    await call.answer(encode(meta.public()))


async def list_files(app: App, keeper: Keeper, call: Call, _: str) -> None:  # noqa: ARG001 - as every handler
    """Answer ``GET /v1/files``."""
    page = read_page(call, FILE, default=10_000, most=10_000, more=("order", "purpose"))
    store = keeper.files(owner_of(call))

    def read(file_id: str) -> dict[str, Any] | None:
        try:
            meta = store.get(file_id)
        except NotFound:
            return None
        return meta.public() if page.purpose in (None, meta.purpose) else None

    await call.answer(encode(await asyncio.to_thread(lambda: listed(page, store.ids(), read))))


async def get_file(app: App, keeper: Keeper, call: Call, file_id: str) -> None:  # noqa: ARG001
    """Answer ``GET /v1/files/{id}``."""
    meta = await asyncio.to_thread(keeper.files(owner_of(call)).get, file_id)
    await call.answer(encode(meta.public()))


async def file_content(app: App, keeper: Keeper, call: Call, file_id: str) -> None:
    """Answer ``GET /v1/files/{id}/content``, piece by piece."""
    meta, file = await asyncio.to_thread(keeper.files(owner_of(call)).open, file_id)
    with file:
        call.watch(app.watch)
        call.started, call.status = True, 200
        headers = [
            (b"content-type", b"application/octet-stream"),
            (b"content-length", b"%d" % meta.bytes),
            (b"content-disposition", f"attachment; filename*=UTF-8''{quote(meta.filename, safe='')}".encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"x-request-id", call.request_id.encode()),
            *call.also,
        ]
        await call.send({"type": "http.response.start", "status": 200, "headers": headers})
        left = 0 if call.scope["method"] == "HEAD" else meta.bytes
        while left and (piece := await asyncio.to_thread(file.read, min(left, _BLOCK))):
            left -= len(piece)
            await call.send({"type": _BODY, "body": piece, "more_body": True})
    call.finished = True
    await call.send({"type": _BODY, "body": b"", "more_body": False})


async def delete_file(app: App, keeper: Keeper, call: Call, file_id: str) -> None:  # noqa: ARG001
    """Answer ``DELETE /v1/files/{id}``."""
    await asyncio.to_thread(keeper.files(owner_of(call)).delete, file_id)
    await call.answer(encode({"id": file_id, "object": "file", "deleted": True}))


async def create_batch(app: App, keeper: Keeper, call: Call, _: str) -> None:
    """Answer ``POST /v1/batches``: take note of the batch; its input is looked at later."""
    body = decode_batch(await call.body(app.settings))
    owner = owner_of(call)
    now = int(time.time())
    kept = body.output_expires_after
    state = State(
        id=new_batch_id(),
        tenant=call.tenant,
        endpoint=body.endpoint,
        input_file_id=body.input_file_id,
        completion_window=body.completion_window,
        created_at=now,
        expires_at=now + window_seconds(body.completion_window),
        metadata=body.metadata,
        output_seconds=None if kept is None else kept.seconds,
    )
    await asyncio.to_thread(_create, keeper, owner, state)
    keeper.wake()
    await call.answer(encode(state.public()))


def _create(keeper: Keeper, owner: str, state: State) -> None:
    files, batches = keeper.files(owner), keeper.batches(owner)
    meta = _input(files, state.input_file_id)
    if meta.purpose != _PURPOSE:
        msg = f"input_file_id: {meta.id} has the purpose {meta.purpose!r}; upload the input with {_PURPOSE!r}"
        raise InvalidArgument(msg, param="input_file_id")
    with batches.draft(state) as made:
        files.link(state.input_file_id, made.input)
        keeper.mark(owner, state.id)  # before it can be seen: whoever dies in between leaves a mark, and no lost batch
        batches.publish(made, state.id)


def _input(files: FileStore, file_id: str) -> FileMeta:
    try:
        return files.get(file_id)
    except NotFound as error:
        raise no_file(file_id, "input_file_id") from error


async def list_batches(app: App, keeper: Keeper, call: Call, _: str) -> None:  # noqa: ARG001
    """Answer ``GET /v1/batches``, the newest first."""
    page = read_page(call, BATCH, default=20, most=100)
    store = keeper.batches(owner_of(call))

    def read(batch_id: str) -> dict[str, Any] | None:
        try:
            return store.look(batch_id).public()
        except NotFound:
            return None

    await call.answer(encode(await asyncio.to_thread(lambda: listed(page, store.ids(), read))))


async def get_batch(app: App, keeper: Keeper, call: Call, batch_id: str) -> None:  # noqa: ARG001
    """Answer ``GET /v1/batches/{id}``."""
    state = await asyncio.to_thread(keeper.batches(owner_of(call)).look, batch_id)
    await call.answer(encode(state.public()))


async def cancel_batch(app: App, keeper: Keeper, call: Call, batch_id: str) -> None:  # noqa: ARG001
    """Answer ``POST /v1/batches/{id}/cancel``: the owner, whichever replica it is, finds the wish on disk."""
    await asyncio.to_thread(keeper.batches(owner_of(call)).cancel, batch_id)
    keeper.wake()
    state = await asyncio.to_thread(keeper.batches(owner_of(call)).look, batch_id)
    await call.answer(encode(state.public()))
