"""Give the output columns their Arrow types: files and blocks with and without errors have one schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa

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


def output_schema(input_schema: pa.Schema | None) -> pa.Schema:
    """Return the schema of the output columns, behind the fields of an input schema."""
    kept = [] if input_schema is None else [field for field in input_schema if field.name not in OUTPUT_TYPES]
    return pa.schema([*kept, *(pa.field(name, kind) for name, kind in OUTPUT_TYPES.items())])
