"""Embed prompts with an encoder, in padded batches on one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Literal

from trunnion.engine import Embedding
from trunnion.errors import ConfigError, InternalError, InvalidArgument
from trunnion.events import Usage

from .config import TransformersConfig
from .loading import Loaded
from .pooling import read_pooling
from .sizes import CPU_BATCH_TOKENS, CPU_REQUESTS_APART, GPU_REQUESTS

_GPU_BATCH_TOKENS: Final = 16384


class Embedder:
    """Hold an encoder and the thread that runs it. Calls share the thread batch by batch."""

    kind: Literal["embed"] = "embed"

    def __init__(self, loaded: Loaded, config: TransformersConfig) -> None:
        """Take the model. Raises :class:`ConfigError` for adapters, and for a pooling that there is not."""
        if config.adapters:
            raise ConfigError("adapters are for models that generate, and this one embeds", param="adapters")
        on_cpu = loaded.device == "cpu"
        self._model = loaded.model
        self._device = loaded.device
        self._threads = config.threads
        self.pooling = read_pooling(loaded.path, config)
        self.context = min(loaded.context, self.pooling.max_tokens or loaded.context)
        self.max_requests = config.max_requests_per_batch or (CPU_REQUESTS_APART if on_cpu else GPU_REQUESTS)
        self._batch_tokens = config.max_batch_tokens or (8 * CPU_BATCH_TOKENS if on_cpu else _GPU_BATCH_TOKENS)
        text = self._model.config.get_text_config()
        self.width = int(text.hidden_size)
        self._widths = tuple(getattr(text, "matryoshka_dimensions", None) or ())
        self._pad = getattr(text, "pad_token_id", None) or 0
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="trunnion-transformers-embed", initializer=self._set_threads
        )

    def _set_threads(self) -> None:
        if self._threads is not None:
            import torch

            torch.set_num_threads(self._threads)

    def check_dimensions(self, dimensions: int | None) -> None:
        """Refuse a length that the vectors cannot be cut to. Raises :class:`InvalidArgument`."""
        if dimensions is None:
            return
        if self._widths and dimensions not in self._widths:
            names = ", ".join(map(str, self._widths))
            raise InvalidArgument(f"dimensions must be one of {names}, not {dimensions}", param="dimensions")
        if not 1 <= dimensions <= self.width:
            message = f"dimensions must be between 1 and the model's {self.width}, not {dimensions}"
            raise InvalidArgument(message, param="dimensions")

    async def embed(self, ids: Sequence[list[int]], dimensions: int | None) -> list[Embedding]:
        """Return a vector per prompt, in order; prompts of like length go together."""
        loop = asyncio.get_running_loop()
        vectors: dict[int, list[float]] = {}
        for places in self._batches(ids):
            try:
                made = await loop.run_in_executor(self._thread, self._run, [ids[i] for i in places], dimensions)
            except RuntimeError as error:
                raise InternalError(f"the encoder failed: {error}") from error
            vectors.update(zip(places, made, strict=True))
        return [
            Embedding(vector=vectors[i], usage=Usage(prompt_tokens=len(ids[i]), completion_tokens=0))
            for i in range(len(ids))
        ]

    def _batches(self, ids: Sequence[list[int]]) -> Iterator[list[int]]:
        batch: list[int] = []
        for place in sorted(range(len(ids)), key=lambda i: len(ids[i])):
            full = len(batch) == self.max_requests or (len(batch) + 1) * len(ids[place]) > self._batch_tokens
            if batch and full:
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _run(self, ids: list[list[int]], dimensions: int | None) -> list[list[float]]:
        import torch

        longest = max(map(len, ids))
        padded = torch.full((len(ids), longest), self._pad, dtype=torch.long)
        mask = torch.zeros((len(ids), longest), dtype=torch.long)
        for row, tokens in enumerate(ids):
            padded[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        padded, mask = padded.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            hidden = self._model(input_ids=padded, attention_mask=mask).last_hidden_state.float()
            vectors = pool(hidden, mask, self.pooling.mode)[:, :dimensions]
            if self.pooling.normalize:
                vectors = torch.nn.functional.normalize(vectors, dim=-1)
            return vectors.tolist()  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the thread and wait until it is gone. Blocking."""
        self._thread.shutdown(cancel_futures=True)


def pool(hidden: Any, mask: Any, mode: str) -> Any:
    """Return one vector per row of ``hidden`` (rows, tokens, width); padding, on the right, is masked with 0."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "last":
        last = mask.sum(1) - 1
        return hidden[range(len(hidden)), last]
    weights = mask[:, :, None]
    if mode == "max":
        return hidden.masked_fill(weights == 0, float("-inf")).amax(1)
    return (hidden * weights).sum(1) / weights.sum(1)
