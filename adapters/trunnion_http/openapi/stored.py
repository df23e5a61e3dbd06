"""Describe ``/v1/files`` and ``/v1/batches``. Kept by hand; a test holds it to the routes, and to real answers."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from trunnion_http.batches.bodies import LONGEST, SHORTEST, BatchBody

from .answers import INTEGER, NULLABLE_STRING, STRING, Schema, array_of, const, object_of, ref

BODIES: Final[tuple[type[Struct], ...]] = (BatchBody,)
_TIME: Final[Schema] = {"type": ["integer", "null"], "description": "A Unix timestamp in seconds"}
_FAULT: Final = object_of(code=STRING, message=STRING, line={"type": ["integer", "null"]}, param=NULLABLE_STRING)
_STATES: Final = (
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled",
)  # fmt: skip
_TIMES: Final = (
    "in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at",
)  # fmt: skip


def _list_of(name: str) -> Schema:
    return object_of(
        object=const("list"),
        data=array_of(ref(name)),
        first_id=NULLABLE_STRING,
        last_id=NULLABLE_STRING,
        has_more={"type": "boolean"},
    )


STORED_ANSWERS: Final[dict[str, Schema]] = {
    "File": object_of(
        id=STRING,
        object=const("file"),
        bytes=INTEGER,
        created_at=INTEGER,
        expires_at=_TIME,
        filename=STRING,
        purpose={"enum": ["batch", "batch_output"]},
        status=const("processed"),
        status_details={"type": "null"},
    ),
    "Files": _list_of("File"),
    "Batch": object_of(
        id=STRING,
        object=const("batch"),
        endpoint=STRING,
        model=NULLABLE_STRING,
        errors={"anyOf": [{"type": "null"}, object_of(object=const("list"), data=array_of(_FAULT))]},
        input_file_id=STRING,
        completion_window=STRING,
        status={"enum": list(_STATES)},
        output_file_id=NULLABLE_STRING,
        error_file_id=NULLABLE_STRING,
        created_at=INTEGER,
        expires_at=INTEGER,
        request_counts=object_of(total=INTEGER, completed=INTEGER, failed=INTEGER),
        usage=object_of(
            input_tokens=INTEGER,
            input_tokens_details=object_of(cached_tokens=INTEGER),
            output_tokens=INTEGER,
            output_tokens_details=object_of(reasoning_tokens=INTEGER),
            total_tokens=INTEGER,
        ),
        metadata={"type": ["object", "null"], "additionalProperties": STRING},
        **dict.fromkeys(_TIMES, _TIME),
    ),
    "Batches": _list_of("Batch"),
}
"""Schemas by the name of their component."""

_SECONDS: Final = {"type": "integer", "minimum": SHORTEST, "maximum": LONGEST}
_EXPIRES: Final = ("expires_after[anchor]", "expires_after[seconds]")
_FORM: Final[Schema] = {
    "type": "object",
    "required": ["file", "purpose"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "purpose": const("batch"),
        _EXPIRES[0]: const("created_at"),
        _EXPIRES[1]: _SECONDS,
    },
    "dependentRequired": {_EXPIRES[0]: [_EXPIRES[1]], _EXPIRES[1]: [_EXPIRES[0]]},
    "additionalProperties": False,
}
_WHY: Final = {
    400: "The request cannot be honoured as it stands, or nothing is kept here",
    401: "A key is needed, or it is wrong",
    404: "There is no such file or batch of this caller's",
    408: "The body came too slowly",
    409: "The batch has ended, or is about to",
    413: "The file or the body is too large",
    429: "The server is full; come back after Retry-After",
    500: "The server failed",
}
_LIMIT: Final = "Most entries"


def _query(name: str, schema: Schema, what: str) -> Schema:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": what}


def _page(prefix: str, default: int, most: int) -> list[Schema]:
    after = {"type": "string", "pattern": f"^{prefix}[0-9a-f]{{32}}$"}
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return [_query("after", after, "The id after which the page begins"), _query("limit", limit, _LIMIT)]


def _operation(  # noqa: PLR0917 - a table is what calls it
    summary: str,
    answer: str,
    failures: tuple[int, ...] = (400, 401, 404, 500),
    query: list[Schema] | None = None,
    body: Schema | None = None,
    media: str = "application/json",
) -> dict[str, Any]:
    schema = {"type": "string", "format": "binary"} if answer == "bytes" else ref(answer)
    responses: dict[str, Any] = {"200": {"description": "The answer", "content": {media: {"schema": schema}}}}
    for status in failures:
        failure = {"application/json": {"schema": ref("Error")}}
        responses[str(status)] = {"description": _WHY[status], "content": failure}
    made: dict[str, Any] = {"summary": summary, "responses": responses}
    if query:
        made["parameters"] = query
    if body is not None:
        made["requestBody"] = {"required": True, "content": body}
    return made


def stored_paths(schemas: dict[type, Schema]) -> dict[str, dict[str, Any]]:
    """Return the paths; ``schemas`` are those of :data:`BODIES`."""
    order = _query("order", {"enum": ["asc", "desc"], "default": "desc"}, "By the time of creation")
    purpose = _query("purpose", {"type": "string"}, "Only files of this purpose")
    files = [*_page("file-", 10_000, 10_000), order, purpose]
    form, batch = {"multipart/form-data": {"schema": _FORM}}, {"application/json": {"schema": schemas[BatchBody]}}
    posting = (400, 401, 404, 408, 413, 429, 500)
    paths = {
        "/v1/files": {
            "get": _operation("List the files, the newest first", "Files", query=files),
            "post": _operation("Keep a file", "File", posting, body=form),
        },
        "/v1/files/{file_id}": {
            "get": _operation("Describe a file", "File"),
            "delete": _operation("Delete a file", "Deleted"),
        },
        "/v1/files/{file_id}/content": {
            "get": _operation("Send a file's bytes", "bytes", media="application/octet-stream")
        },
        "/v1/batches": {
            "get": _operation("List the batches, the newest first", "Batches", query=_page("batch_", 20, 100)),
            "post": _operation("Begin a batch", "Batch", posting, body=batch),
        },
        "/v1/batches/{batch_id}": {"get": _operation("Describe a batch", "Batch")},
        "/v1/batches/{batch_id}/cancel": {
            "post": _operation("Cancel a batch; what was answered stays", "Batch", (400, 401, 404, 409, 429, 500))
        },
    }
    for path, methods in paths.items():
        for name in ("file_id", "batch_id"):
            if f"{{{name}}}" in path:
                known = {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
                for operation in methods.values():
                    operation["parameters"] = [known]
    return paths
