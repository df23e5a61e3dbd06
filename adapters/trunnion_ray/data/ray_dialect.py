"""Speak the columns of ``ray.data.llm``, so that programs written for it find what they expect, and nothing more."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from trunnion import MessagesPrompt, TextPrompt, TokensPrompt
from trunnion.errors import TrunnionError, UnsupportedFeature
from trunnion.pooling import PoolingAnswer, PoolingRequest
from trunnion.row_tasks import RowRequest, task_request
from trunnion.rows import RowOptions, completion_to_columns

from .runner import Answer

_REFUSED: Final = (
    "multimodal_data",
    "multimodal_uuids",
    "mm_processor_kwargs",
    "tokenization_kwargs",
)
_POOLING: Final = "pooling_params"
_FAILED: Final[Mapping[str, Any]] = {
    "prompt": None,
    "prompt_token_ids": [],
    "num_input_tokens": 0,
    "generated_tokens": [],
    "generated_text": "",
    "num_generated_tokens": 0,
    "embeddings": None,
    "metrics": None,
    "logprobs": None,
    "prompt_logprobs": None,
    "request_id": -1,
    "batch_uuid": "",
    "time_taken_llm": -1.0,
    "params": "",
}
_numbers = itertools.count()


class RayDialect:
    """Give the columns of Ray's vLLM processor. ``keep_detokenize``: rows may switch their text off."""

    types: Mapping[str, pa.DataType] = {
        "prompt": pa.string(),
        "prompt_token_ids": pa.list_(pa.int64()),
        "num_input_tokens": pa.int64(),
        "generated_tokens": pa.list_(pa.int64()),
        "generated_text": pa.string(),
        "num_generated_tokens": pa.int64(),
        "embeddings": pa.list_(pa.float32()),
        "metrics": pa.string(),
        "logprobs": pa.string(),
        "prompt_logprobs": pa.string(),
        "request_id": pa.int64(),
        "batch_uuid": pa.string(),
        "time_taken_llm": pa.float64(),
        "params": pa.string(),
        "__inference_error__": pa.string(),
    }
    consumed = frozenset({"sampling_params", "tokenized_prompt", _POOLING, *_REFUSED})
    error = "__inference_error__"
    no_error: Any = ""
    bare_errors = False

    def __init__(self, *, keep_detokenize: bool = False) -> None:
        self._keep_detokenize = keep_detokenize

    def request(self, row: Mapping[str, Any], options: RowOptions) -> RowRequest:
        """Return the request of a row; a conversation that ends with the assistant's words is continued."""
        for name in _REFUSED:
            if row.get(name) is not None:
                raise UnsupportedFeature(f"column {name} cannot be honoured: batches take text alone", param=name)
        pooling = {name: value for name, value in (row.get(_POOLING) or {}).items() if value is not None}
        request = task_request(row, options)
        if isinstance(request, PoolingRequest):
            return _pooled(request, pooling)
        if pooling:
            raise UnsupportedFeature(f"{_POOLING} are not for rows that generate", param=_POOLING)
        changes: dict[str, Any] = {}
        if not self._keep_detokenize and not request.detokenize:
            changes["detokenize"] = True  # the detokenize stage makes the text, whatever the engine was told
        prompt = request.prompt
        if isinstance(prompt, MessagesPrompt) and prompt.messages[-1].get("role") == "assistant":
            changes["prompt"] = replace(prompt, add_generation_prompt=False, continue_final_message=True)
        return request.with_(**changes) if changes else request

    def answered(self, row: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
        """Return the output columns of an answered row; logprobs are JSON text, labels' probabilities embeddings."""
        prompt = answer.prompt
        if isinstance(answer.completion, PoolingAnswer):
            pooled = answer.completion
            return {
                **_FAILED,
                "prompt": prompt.text if isinstance(prompt, TextPrompt | TokensPrompt) else None,
                "prompt_token_ids": list(prompt.token_ids) if isinstance(prompt, TokensPrompt) else [],
                "num_input_tokens": pooled.usage.prompt_tokens,
                "embeddings": list(pooled.vector or pooled.probabilities.values()),
                "request_id": next(_numbers),
                "batch_uuid": answer.block,
                "time_taken_llm": answer.seconds,
                "params": str(row.get(_POOLING) or {}),
                "__inference_error__": "",
            }
        columns = completion_to_columns(answer.completion)
        logprobs = None
        if columns["choices"] is not None:
            first = json.loads(columns["choices"])[0]
            logprobs = None if first.get("logprobs") is None else json.dumps(first["logprobs"])
        return {
            "prompt": prompt.text if isinstance(prompt, TextPrompt | TokensPrompt) else None,
            "prompt_token_ids": list(prompt.token_ids) if isinstance(prompt, TokensPrompt) else [],
            "num_input_tokens": columns["num_input_tokens"],
            "generated_tokens": columns["generated_tokens"],
            "generated_text": columns["generated_text"],
            "num_generated_tokens": columns["num_generated_tokens"],
            "embeddings": None,
            "metrics": None,
            "logprobs": logprobs,
            "prompt_logprobs": columns["prompt_logprobs"],
            "request_id": next(_numbers),
            "batch_uuid": answer.block,
            "time_taken_llm": answer.seconds,
            "params": str(row.get("sampling_params") or {}),
            "__inference_error__": "",
        }

    def failed(self, row: Mapping[str, Any], error: TrunnionError) -> dict[str, Any]:
        """Return the output columns of a failed row."""
        prompt = row.get("prompt")
        return {
            **_FAILED,
            "prompt": prompt if isinstance(prompt, str) else None,
            "__inference_error__": f"{type(error).__name__}: {error}",
        }

    def earlier(self, value: Any) -> TrunnionError | None:
        """Return the error that a processor before put into a row's error column; None for any other value."""
        if not isinstance(value, str) or not value:
            return None
        name, _, message = value.partition(": ")
        return TrunnionError.from_dict({"type": name, "message": message or value})


def _pooled(request: PoolingRequest, params: Mapping[str, Any]) -> PoolingRequest:
    """Return the request with what a row's ``pooling_params`` ask for: the length of a vector, and nothing else."""
    unknown = sorted(set(params) - ({"dimensions"} if request.task == "embed" else set()))
    if unknown:
        message = f"{_POOLING}.{unknown[0]} cannot be honoured: a row to embed takes dimensions alone"
        raise UnsupportedFeature(message, param=f"{_POOLING}.{unknown[0]}")
    return replace(request, **params)
