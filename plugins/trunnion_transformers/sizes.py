"""Choose the sizes of the KV cache and of a step, where the configuration does not.

The library's own choice takes most of the machine's memory for the cache and 8192 tokens for a step, and allocates an
attention mask of one by the other: on a CPU its steps then take many times as long as with sizes like these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from .config import TransformersConfig

CPU_PAGE: Final = 32
CPU_CACHE_TOKENS: Final = 32768
CPU_BATCH_TOKENS: Final = 512
CPU_REQUESTS: Final = 128
CPU_REQUESTS_APART: Final = 16
"""Where more in a step gain nothing: attention that costs their square, as the library's own does, and encoders."""
GPU_PAGE: Final = 256
GPU_REQUESTS: Final = 256
_MEMORY_SHARE: Final = 4
"""The cache takes at most one part in so many of the memory that is free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Hold the library's sizes; None leaves a size to it (which measures the GPU's memory)."""

    page_size: int
    num_blocks: int | None
    max_batch_tokens: int | None
    max_requests_per_batch: int


def choose_sizes(
    config: TransformersConfig,
    *,
    device: Literal["cpu", "cuda"],
    model_len: int,
    bytes_per_token: int,
    free_bytes: int,
    square: bool,
) -> Sizes:
    """Return sizes for a model: what is configured as it is, the rest as suits the device.

    Args:
        config: The engine's configuration.
        device: Where the cache lies.
        model_len: Context length of the model in tokens.
        bytes_per_token: Bytes of KV cache per token, over all layers.
        free_bytes: Memory that can be taken.
        square: Whether attention costs the square of the requests in a step.
    """
    if device == "cuda":
        return Sizes(
            page_size=config.page_size or GPU_PAGE,
            num_blocks=config.num_blocks,
            max_batch_tokens=config.max_batch_tokens,
            max_requests_per_batch=config.max_requests_per_batch or GPU_REQUESTS,
        )
    page = config.page_size or CPU_PAGE
    blocks = config.num_blocks
    if blocks is None:
        affordable = free_bytes // _MEMORY_SHARE // max(1, bytes_per_token)
        # A context that was asked for must fit, whatever the memory; the library says so if it does not.
        tokens = max(min(CPU_CACHE_TOKENS, affordable), min(config.max_model_len or page, model_len))
        blocks = -(-tokens // page)
    return Sizes(
        page_size=page,
        num_blocks=blocks,
        max_batch_tokens=config.max_batch_tokens or CPU_BATCH_TOKENS,
        max_requests_per_batch=config.max_requests_per_batch or (CPU_REQUESTS_APART if square else CPU_REQUESTS),
    )
