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


def object_of(optional: dict[str, Schema] | None = None, /, **required: Schema) -> Schema:
    """Return an object that holds these fields and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": False,
    }


def array_of(items: Schema) -> Schema:
    """Return an array."""
    return {"type": "array", "items": items}


def const(value: str) -> Schema:
    """Return a string that is always the same."""
    return {"const": value}


_REASON: Final[Schema] = {"enum": ["stop", "length", "tool_calls", "content_filter"]}
_NULLABLE_OBJECT: Final[Schema] = {"type": ["object", "null"]}
_USAGE: Final = object_of(
    {"completion_tokens_details": OBJECT, "prompt_tokens_details": OBJECT},
    prompt_tokens=INTEGER,
    completion_tokens=INTEGER,
    total_tokens=INTEGER,
)
_READ: Final = object_of(prompt_tokens=INTEGER, total_tokens=INTEGER)
_CALL: Final = object_of(id=STRING, type=const("function"), function=object_of(name=STRING, arguments=STRING))
_MODEL: Final = object_of(
    {"max_model_len": INTEGER, "parent": STRING},
    id=STRING,
    object=const("model"),
    created=INTEGER,
    owned_by=STRING,
)
_EMBEDDING: Final = object_of(
    object=const("embedding"), index=INTEGER, embedding={"type": ["array", "string"], "items": {"type": "number"}}
)

ANSWERS: Final[dict[str, Schema]] = {
    "Error": object_of(error=object_of(message=STRING, type=STRING, param=NULLABLE_STRING, code=STRING)),
    "AnthropicError": object_of(
        type=const("error"), error=object_of(type=STRING, message=STRING), request_id=NULLABLE_STRING
    ),
    "ChatCompletion": object_of(
        id=STRING,
        object=const("chat.completion"),
        created=INTEGER,
        model=STRING,
        choices=array_of(
            object_of(
                index=INTEGER,
                message=object_of(
                    {"tool_calls": array_of(_CALL), "reasoning_content": STRING},
                    role=const("assistant"),
                    content=NULLABLE_STRING,
                    refusal={"type": "null"},
                ),
                logprobs=_NULLABLE_OBJECT,
                finish_reason=_REASON,
            )
        ),
        usage=_USAGE,
    ),
    "Completion": object_of(
        id=STRING,
        object=const("text_completion"),
        created=INTEGER,
        model=STRING,
        choices=array_of(object_of(index=INTEGER, text=STRING, logprobs=_NULLABLE_OBJECT, finish_reason=_REASON)),
        usage=_USAGE,
    ),
    "Embeddings": object_of(
        object=const("list"),
        data=array_of(_EMBEDDING),
        model=STRING,
        usage=_READ,
    ),
    "Transcription": object_of(
        {"usage": object_of(type=const("tokens"), input_tokens=INTEGER, output_tokens=INTEGER, total_tokens=INTEGER)},
        text=STRING,
    ),
    "Scores": object_of(
        id=STRING,
        object=const("list"),
        created=INTEGER,
        model=STRING,
        data=array_of(object_of(index=INTEGER, object=const("score"), score={"type": "number"})),
        usage=_READ,
    ),
    "Ranking": object_of(
        id=STRING,
        model=STRING,
        results=array_of(
            object_of({"document": object_of(text=STRING)}, index=INTEGER, relevance_score={"type": "number"})
        ),
        usage=_READ,
    ),
    "Labels": object_of(
        id=STRING,
        object=const("list"),
        created=INTEGER,
        model=STRING,
        data=array_of(
            object_of(
                index=INTEGER,
                label=STRING,
                probs=array_of({"type": "number"}),
                num_classes=INTEGER,
                labels=array_of(STRING),
            )
        ),
        usage=_READ,
    ),
    "AnthropicMessage": object_of(
        id=STRING,
        type=const("message"),
        role=const("assistant"),
        model=STRING,
        content=array_of({"type": "object", "required": ["type"]}),
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
    "AnthropicCount": object_of(input_tokens=INTEGER),
    "Response": {
        "type": "object",
        "required": ["id", "object", "created_at", "model", "status", "output", "usage", "error"],
        "properties": {
            "id": STRING,
            "object": const("response"),
            "created_at": INTEGER,
            "model": STRING,
            "status": {"enum": ["completed", "incomplete"]},
            "output": array_of({"type": "object", "required": ["type", "id", "status"]}),
            "usage": OBJECT,
            "error": {"type": "null"},
        },
    },
    "Tokens": object_of(
        count=INTEGER, max_model_len={"type": ["integer", "null"]}, tokens=_IDS, token_strs={"type": "null"}
    ),
    "Text": object_of(prompt=STRING),
    "Figures": STRING,
    "OpenAPI": OBJECT,
    "Model": _MODEL,
    "Models": object_of(object=const("list"), data=array_of(ref("Model"))),
    "Deleted": object_of(id=STRING, object=STRING, deleted={"const": True}),
    "Done": object_of(status=const("ok"), model=STRING),
    "Health": object_of({"models": OBJECT}, status={"enum": ["ok", "unhealthy"]}),
    "Ready": {
        "type": "object",
        "required": ["status", "models"],
        "properties": {
            "status": {"enum": ["ready", "starting", "draining"]},
            "models": {"type": "object", "additionalProperties": {"type": "boolean"}},
        },
    },
    "Version": object_of(version=STRING, engines={"type": "object", "additionalProperties": STRING}),
}
"""Schemas by the name of their component."""
