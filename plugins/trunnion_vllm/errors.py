"""Map every exception of vLLM onto the one error tree."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self, cast

from trunnion.errors import (
    AdapterNotFound,
    Cancelled,
    ContextOverflow,
    EngineDead,
    InternalError,
    InvalidArgument,
    NotFound,
    Overloaded,
    Transient,
    TrunnionError,
    UnsupportedFeature,
)

# vLLM's words for a field, to ours; searched in messages that name no parameter, in this order.
_FIELDS: Final = {
    "structured_outputs": "output_format",
    "structured output": "output_format",
    "grammar": "output_format",
    "choice": "output_format",
    "guidance": "output_format",
    "regex": "output_format",
    "json": "output_format",
    "prompt_logprobs": "prompt_logprobs",
    "prompt logprobs": "prompt_logprobs",
    "logprobs": "logprobs",
    "logit_bias": "logit_bias",
    "min_p": "min_p",
    "n must be": "n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "repetition_penalty": "repetition_penalty",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_tokens": "min_tokens",
    "max_tokens": "max_tokens",
    "stop_token_ids": "stop_token_ids",
    "stop string": "stop",
    "stop cannot": "stop",
    "bad_words": "extra.vllm.bad_words",
    "allowed_token_ids": "extra.vllm.allowed_token_ids",
    "lora": "adapter",
    "prompt": "prompt",
    "token id": "prompt",
}
_UNSUPPORTED: Final = re.compile(
    r"not (yet |currently )?support|does not support|unsupported|is not enabled", re.IGNORECASE
)
_NO_ADAPTER: Final = re.compile(r"Loading lora (\S+) failed: No adapter found for (\S+?)[',]?(\s|$)")
_OVERFLOW: Final = re.compile(r"longer than the maximum|maximum context length|max_model_len", re.IGNORECASE)


def map_error(error: BaseException) -> TrunnionError:
    """Return the error of the tree for an exception of vLLM's; one of the tree comes back as it is."""
    from . import _vllm

    message = str(error) or type(error).__name__
    if lost := _NO_ADAPTER.search(message):  # a worker's error arrives here as the text of another one
        return AdapterNotFound(f"there is no adapter for {lost[1]!r} at {lost[2]}", param="adapter")
    mapping: Mapping[tuple[type[BaseException], ...], Callable[[], TrunnionError]] = {
        (TrunnionError,): lambda: cast("TrunnionError", error),
        (_vllm.EngineDeadError,): lambda: EngineDead(
            "the vLLM engine died (its log says why); build a new one from the spec"
        ),
        # The wrapper that AsyncLLM.generate and encode put around what they did not expect.
        (_vllm.EngineGenerateError,): lambda: map_error(error.__cause__ or RuntimeError(message)),
        _vllm.RETRYABLE_ERRORS: lambda: Transient(f"vLLM gave the request up: {message}"),
        _vllm.BUSY_ERRORS: lambda: Overloaded(f"vLLM refused the request: {message}", retry_after=1.0),
        _vllm.NOT_FOUND_ERRORS: lambda: (AdapterNotFound if "lora" in message.lower() else NotFound)(message),
        _vllm.CLIENT_ERRORS: lambda: _refusal(error, message),
        (asyncio.CancelledError,): lambda: Cancelled("the request was cancelled"),
    }
    for classes, make in mapping.items():
        if isinstance(error, classes):
            return make()
    return InternalError(f"vLLM failed: {type(error).__name__}: {message}")


def _refusal(error: BaseException, message: str) -> TrunnionError:
    if _OVERFLOW.search(message):
        return ContextOverflow(message, param="prompt")
    param = getattr(error, "parameter", None)
    if not isinstance(param, str):
        lowered = message.lower()
        param = next((ours for theirs, ours in _FIELDS.items() if theirs in lowered), None)
    unsupported = isinstance(error, NotImplementedError) or _UNSUPPORTED.search(message)
    return (UnsupportedFeature if unsupported else InvalidArgument)(f"vLLM refused the request: {message}", param=param)


class mapped:  # noqa: N801 - used as a statement, like contextlib.suppress
    """Raise what vLLM raises inside as the error of the tree, ``from`` the original.

    Cancellation passes as it is. A class, since a generator-based context manager costs several times as much.
    """

    __slots__ = ()

    def __enter__(self) -> Self:
        """Enter; nothing to set up."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Map an exception, if it is one and not of the tree already."""
        if isinstance(error, Exception) and not isinstance(error, TrunnionError):
            raise map_error(error) from error


MAPPED: Final = mapped()
"""The one instance; it holds no state."""
