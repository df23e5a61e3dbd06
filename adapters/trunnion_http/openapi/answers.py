"""Describe what the routes answer, as JSON Schema. Kept by hand; a test holds real answers to it."""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]

STRING: Final[Schema] = {"type": "string"}
NULLABLE_STRING: Final[Schema] = {"type": ["string", "null"]}
INTEGER: Final[Schema] = {"type": "integer"}
OBJECT: Final[Schema] = {"type": "object"}
_IDS: Final[Schema] = {"type": "array", "items": {"type": "integer", "minimum": 0}}


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(optional: dict[str, Schema] | None = None, /, **required: Schema) -> Schema:
    """Return an object that holds these fields and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _const(value: str) -> Schema:
    return {"const": value}


_REASON: Final[Schema] = {"enum": ["stop", "length", "tool_calls", "content_filter"]}
_NULLABLE_OBJECT: Final[Schema] = {"type": ["object", "null"]}
_USAGE: Final = _object(
    {"completion_tokens_details": OBJECT, "prompt_tokens_details": OBJECT},
    prompt_tokens=INTEGER,
    completion_tokens=INTEGER,
    total_tokens=INTEGER,
)
_READ: Final = _object(prompt_tokens=INTEGER, total_tokens=INTEGER)
_CALL: Final = _object(id=STRING, type=_const("function"), function=_object(name=STRING, arguments=STRING))
_MODEL: Final = _object(
    {"max_model_len": INTEGER, "parent": STRING},
    id=STRING,
    object=_const("model"),
    created=INTEGER,
    owned_by=STRING,
)
_EMBEDDING: Final = _object(
    object=_const("embedding"), index=INTEGER, embedding={"type": ["array", "string"], "items": {"type": "number"}}
)

ANSWERS: Final[dict[str, Schema]] = {
    "Error": _object(error=_object(message=STRING, type=STRING, param=NULLABLE_STRING, code=STRING)),
    "AnthropicError": _object(
        type=_const("error"), error=_object(type=STRING, message=STRING), request_id=NULLABLE_STRING
    ),
    "ChatCompletion": _object(
        id=STRING,
        object=_const("chat.completion"),
        created=INTEGER,
        model=STRING,
        choices=_list(
            _object(
                index=INTEGER,
                message=_object(
                    {"tool_calls": _list(_CALL), "reasoning_content": STRING},
                    role=_const("assistant"),
                    content=NULLABLE_STRING,
                    refusal={"type": "null"},
                ),
                logprobs=_NULLABLE_OBJECT,
                finish_reason=_REASON,
            )
        ),
        usage=_USAGE,
    ),
    "Completion": _object(
        id=STRING,
        object=_const("text_completion"),
        created=INTEGER,
        model=STRING,
        choices=_list(_object(index=INTEGER, text=STRING, logprobs=_NULLABLE_OBJECT, finish_reason=_REASON)),
        usage=_USAGE,
    ),
    "Embeddings": _object(
        object=_const("list"),
        data=_list(_EMBEDDING),
        model=STRING,
        usage=_READ,
    ),
    "Scores": _object(
        id=STRING,
        object=_const("list"),
        created=INTEGER,
        model=STRING,
        data=_list(_object(index=INTEGER, object=_const("score"), score={"type": "number"})),
        usage=_READ,
    ),
    "Ranking": _object(
        id=STRING,
        model=STRING,
        results=_list(_object({"document": _object(text=STRING)}, index=INTEGER, relevance_score={"type": "number"})),
        usage=_READ,
    ),
    "Labels": _object(
        id=STRING,
        object=_const("list"),
        created=INTEGER,
        model=STRING,
        data=_list(
            _object(
                index=INTEGER,
                label=STRING,
                probs=_list({"type": "number"}),
                num_classes=INTEGER,
                labels=_list(STRING),
            )
        ),
        usage=_READ,
    ),
    "AnthropicMessage": _object(
        id=STRING,
        type=_const("message"),
        role=_const("assistant"),
        model=STRING,
        content=_list({"type": "object", "required": ["type"]}),
        stop_reason={
            "enum": [
                "end_turn",
                "max_tokens",
                "stop_sequence",
                "tool_use",
                "refusal",
                "model_context_window_exceeded",
            ]
        },
        stop_sequence=NULLABLE_STRING,
        stop_details={"type": "null"},
        usage=OBJECT,
    ),
    "AnthropicCount": _object(input_tokens=INTEGER),
    "Response": {
        "type": "object",
        "required": ["id", "object", "created_at", "model", "status", "output", "usage", "error"],
        "properties": {
            "id": STRING,
            "object": _const("response"),
            "created_at": INTEGER,
            "model": STRING,
            "status": {"enum": ["completed", "incomplete"]},
            "output": _list({"type": "object", "required": ["type", "id", "status"]}),
            "usage": OBJECT,
            "error": {"type": "null"},
        },
    },
    "Tokens": _object(
        count=INTEGER, max_model_len={"type": ["integer", "null"]}, tokens=_IDS, token_strs={"type": "null"}
    ),
    "Text": _object(prompt=STRING),
    "Figures": STRING,
    "OpenAPI": OBJECT,
    "Model": _MODEL,
    "Models": _object(object=_const("list"), data=_list(ref("Model"))),
    "Deleted": _object(id=STRING, object=STRING, deleted={"const": True}),
    "Done": _object(status=_const("ok"), model=STRING),
    "Health": _object({"models": OBJECT}, status={"enum": ["ok", "unhealthy"]}),
    "Ready": {
        "type": "object",
        "required": ["status", "models"],
        "properties": {
            "status": {"enum": ["ready", "starting", "draining"]},
            "models": {"type": "object", "additionalProperties": {"type": "boolean"}},
        },
    },
    "Version": _object(version=STRING, engines={"type": "object", "additionalProperties": STRING}),
}
"""Schemas by the name of their component."""
