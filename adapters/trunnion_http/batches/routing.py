"""Find the handler of a path under ``/v1/files`` and ``/v1/batches``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from trunnion.errors import UnsupportedFeature
from trunnion_http.call import Call
from trunnion_http.errors import method_not_allowed, unknown_path

from .handlers import (
    Handler,
    cancel_batch,
    create_batch,
    create_file,
    delete_file,
    file_content,
    get_batch,
    get_file,
    list_batches,
    list_files,
)

if TYPE_CHECKING:
    from trunnion_http.app import App

STORED: Final[dict[str, dict[str, Handler]]] = {
    "/v1/files": {"GET": list_files, "POST": create_file},
    "/v1/files/{file_id}": {"GET": get_file, "DELETE": delete_file},
    "/v1/files/{file_id}/content": {"GET": file_content},
    "/v1/batches": {"GET": list_batches, "POST": create_batch},
    "/v1/batches/{batch_id}": {"GET": get_batch},
    "/v1/batches/{batch_id}/cancel": {"POST": cancel_batch},
}
"""Handlers by path and method."""
_PATH: Final = re.compile(r"(?P<head>/v1/(?P<kind>files|batches))(?:/(?P<id>[^/]+)(?P<tail>/[a-z]+)?)?/?")


def stored_route(path: str) -> tuple[str, str] | None:
    """Return the path that stands for this one in :data:`STORED`, and the id in it; None if it is none of these."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    name = ""
    if found["id"] is not None:
        name = "/{file_id}" if found["kind"] == "files" else "/{batch_id}"
    pattern = f"{found['head']}{name}{found['tail'] or ''}"
    return (pattern, found["id"] or "") if pattern in STORED else None


async def serve_stored(app: App, call: Call, path: str) -> None:
    """Answer a request under ``/v1/files`` or ``/v1/batches``.

    Raises:
        NotFound: There is no such path.
        InvalidArgument: It has no such method (405).
        UnsupportedFeature: Nothing is kept here.
    """
    method: str = call.scope["method"]
    route = stored_route(path)
    if route is None:
        raise unknown_path(method, path)
    pattern, one = route
    methods = STORED[pattern]
    handler = methods.get("GET" if method == "HEAD" else method)
    if handler is None:
        raise method_not_allowed(method, path, ",".join(methods))
    keeper = app.batches
    if keeper is None:
        msg = (
            "files and batches are not kept here; to switch them on, start the server with --batch-folder DIR, "
            "or set http.batches.folder"
        )
        raise UnsupportedFeature(msg)
    keeper.start()
    await handler(app, keeper, call, one)
