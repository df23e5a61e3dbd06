"""Give the output columns their Arrow types: files and blocks with and without errors have one schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

from trunnion.pooling import Task
from trunnion.row_tasks import TASK_COLUMNS

_ERROR: Final = pa.struct(
    [
        ("type", pa.string()),
        ("message", pa.string()),
        ("code", pa.string()),
        ("http_status", pa.int64()),
        ("retryable", pa.bool_()),
        ("retry_after", pa.float64()),
        ("param", pa.string()),
        ("details", pa.string()),
    ]
)
_USAGE: Final = pa.struct(
    [
        (name, pa.int64())
        for name in ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")
    ]
)
OUTPUT_TYPES: Final[Mapping[str, pa.DataType]] = {
    "generated_text": pa.string(),
    "generated_tokens": pa.list_(pa.int64()),
    "finish_reason": pa.string(),
    "num_input_tokens": pa.int64(),
    "num_generated_tokens": pa.int64(),
    "usage": _USAGE,
    "tool_calls": pa.string(),
    "reasoning": pa.string(),
    "choices": pa.string(),
    "prompt_logprobs": pa.string(),
    "error": _ERROR,
}
"""The Arrow type of every column of :data:`trunnion.rows.OUTPUT_COLUMNS`."""


_FLOATS: Final = pa.list_(pa.float32())
_TYPES: Final[Mapping[str, pa.DataType]] = {
    **OUTPUT_TYPES,
    "embedding": _FLOATS,
    "predicted_label": pa.string(),
    "label_names": pa.list_(pa.string()),
    "label_probabilities": _FLOATS,
    "scores": _FLOATS,
}


def output_types(task: Task = "generate") -> dict[str, pa.DataType]:
    """Return the Arrow type of every output column of a task."""
    return {name: _TYPES[name] for name in TASK_COLUMNS[task]}


def output_schema(input_schema: pa.Schema | None, task: Task = "generate") -> pa.Schema:
    """Return the schema of the output columns, behind the fields of an input schema."""
    types = output_types(task)
    kept = [] if input_schema is None else [field for field in input_schema if field.name not in types]
    return pa.schema([*kept, *(pa.field(name, kind) for name, kind in types.items())])
