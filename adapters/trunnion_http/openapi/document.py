"""Make the OpenAPI document: request bodies of what the decoders accept, the rest of what is kept by hand."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

import trunnion
from trunnion_http.anthropic.body import BLOCKS, RESULT_BLOCKS, Message, MessagesBody, ToolResultBlock
from trunnion_http.anthropic.body import REFUSED as REFUSED_BY_MESSAGES
from trunnion_http.call import Call
from trunnion_http.responses.body import ITEMS, PARTS, MessageItem, OutputItem, ResponsesBody, Tool
from trunnion_http.responses.body import REFUSED as REFUSED_BY_RESPONSES
from trunnion_http.wire import REFUSED, ChatBody, encode

from .answers import ANSWERS, STRING, ref
from .routes import DESCRIBED, Route
from .stored import BODIES, STORED_ANSWERS, stored_paths

if TYPE_CHECKING:
    from trunnion_http.app import App

_FAILURES: Final = {
    400: "The request cannot be honoured as it stands; the message names the field",
    401: "A key is needed, or it is wrong",
    403: "The caller may not do this",
    404: "The model is not served here",
    408: "The body came too slowly",
    413: "The body is too large",
    429: "A queue or a limit is full; come back after Retry-After",
    499: "The request was given up",
    500: "The engine or the server failed",
    503: "The engine cannot answer now",
    504: "The time of the request was up",
}
_OPEN_FAILURES: Final = (500,)
_NO_BODY_FAILURES: Final = (401, 404, 500)
_ITEMS: Final[dict[tuple[type[Struct], str], tuple[type[Struct], ...]]] = {
    (Message, "content"): tuple(BLOCKS.values()),
    (ToolResultBlock, "content"): tuple(BLOCKS[name] for name in RESULT_BLOCKS),
    (ResponsesBody, "input"): tuple(ITEMS.values()),
    (ResponsesBody, "tools"): (Tool,),
    (MessageItem, "content"): tuple(PARTS.values()),
    (OutputItem, "output"): (PARTS["input_text"], PARTS["input_image"]),
}
"""What converters take in the lists that decoders leave open."""
_REFUSED: Final[dict[type[Struct], dict[str, str]]] = {
    ChatBody: REFUSED,
    MessagesBody: REFUSED_BY_MESSAGES,
    ResponsesBody: REFUSED_BY_RESPONSES,
}
"""Fields that decoders know only to say what to do instead."""


async def openapi(app: App, call: Call) -> None:  # noqa: ARG001 - as every handler
    """Answer ``GET /openapi.json``."""
    await call.answer(_encoded())


@cache
def _encoded() -> bytes:
    return encode(document())


def document() -> dict[str, Any]:
    """Return the document as JSON values."""
    bodies = [route.body for route in DESCRIBED.values() if route.body is not None]
    held = [kind for (holder, _), kinds in _ITEMS.items() for kind in (holder, *kinds)]
    types = list(dict.fromkeys([*bodies, *BODIES, *held]))
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(types, schemas, strict=True))
    for (holder, field), kinds in _ITEMS.items():
        fields = components[_name(by_type[holder])]["properties"]
        _list_in(fields[field])["items"] = {"anyOf": [by_type[kind] for kind in kinds]}
    for holder, refused in _REFUSED.items():
        fields = components[_name(by_type[holder])]["properties"]
        fields.update({name: {"type": "null", "description": f"Refused: {why}"} for name, why in refused.items()})
    return {
        "openapi": "3.1.0",
        "info": {"title": "Trunnion", "version": trunnion.__version__, "license": {"name": "Apache-2.0"}},
        "paths": {
            **{path: {route.method: _operation(path, route, by_type)} for path, route in DESCRIBED.items()},
            **stored_paths(by_type),
        },
        "components": {
            "schemas": {**components, **ANSWERS, **STORED_ANSWERS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
        "security": [{}, {"bearer": []}, {"key": []}],
    }


def _name(schema: dict[str, str]) -> str:
    return schema["$ref"].rpartition("/")[2]


def _list_in(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the list among the alternatives of a field."""
    return next(option for option in schema.get("anyOf", [schema]) if option.get("type") == "array")


def _operation(path: str, route: Route, schemas: dict[type, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {route.media: {"schema": ref(route.answer)}}
    if route.streams:
        content["text/event-stream"] = {}  # OpenAPI 3.1 has no words for events
    if route.text:
        content["text/plain"] = {"schema": STRING}
    responses: dict[str, Any] = {"200": {"description": "The answer", "content": content}}
    if route.failing:
        responses["503"] = {"description": "Not now, and why", "content": content}
    statuses = tuple(_FAILURES) if route.takes else _OPEN_FAILURES if route.failing else _NO_BODY_FAILURES
    for status in statuses:
        failure = {"application/json": {"schema": ref(route.error)}}
        responses.setdefault(str(status), {"description": _FAILURES[status], "content": failure})
    made: dict[str, Any] = {"summary": route.summary, "responses": responses}
    if route.body is not None:
        body = {"application/json": {"schema": schemas[route.body]}}
        made["requestBody"] = {"required": True, "content": body}
    elif route.form is not None:
        made["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": route.form}}}
    if "{model}" in path:
        named = {"type": "string", "minLength": 1}
        made["parameters"] = [{"name": "model", "in": "path", "required": True, "schema": named}]
    return made
