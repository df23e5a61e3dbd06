"""Run an encoder in padded batches on one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from trunnion.errors import ConfigError, InternalError

from .config import TransformersConfig
from .loading import Loaded
from .sizes import CPU_BATCH_TOKENS, CPU_REQUESTS_APART, GPU_REQUESTS

_GPU_BATCH_TOKENS: Final = 16384


class Tokens(NamedTuple):
    """Hold one input's token ids, and how many of them are the second of two texts where the model tells them apart."""

    ids: list[int]
    second: int = 0


class Encoder:
    """Hold an encoder and the thread that runs it. Calls share the thread batch by batch."""

    does: str = "encodes"

    def __init__(self, loaded: Loaded, config: TransformersConfig) -> None:
        """Take the model. Raises :class:`ConfigError` for adapters."""
        if config.adapters:
            raise ConfigError(f"adapters are for models that generate, and this one {self.does}", param="adapters")
        on_cpu = loaded.device == "cpu"
        self._model = loaded.model
        self._device = loaded.device
        self._threads = config.threads
        self.context = loaded.context
        self.max_requests = config.max_requests_per_batch or (CPU_REQUESTS_APART if on_cpu else GPU_REQUESTS)
        self._batch_tokens = config.max_batch_tokens or (8 * CPU_BATCH_TOKENS if on_cpu else _GPU_BATCH_TOKENS)
        self._pad = getattr(self._model.config.get_text_config(), "pad_token_id", None) or 0
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="trunnion-transformers-encode", initializer=self._set_threads
        )

    def _set_threads(self) -> None:
        if self._threads is not None:
            import torch

            torch.set_num_threads(self._threads)

    async def encode(self, inputs: Sequence[Tokens], finish: Callable[[Any, Any], Any]) -> list[Any]:
        """Return a row of numbers per input, in order; inputs of like length go together.

        ``finish`` takes the model's output and the mask of tokens, and returns a tensor with a row per input.
        """
        loop = asyncio.get_running_loop()
        rows: dict[int, Any] = {}
        for places in self._batches(inputs):
            try:
                made = await loop.run_in_executor(self._thread, self._run, [inputs[i] for i in places], finish)
            except (RuntimeError, ValueError) as error:
                raise InternalError(f"the encoder failed: {error}") from error
            rows.update(zip(places, made, strict=True))
        return [rows[i] for i in range(len(inputs))]

    def _batches(self, inputs: Sequence[Tokens]) -> Iterator[list[int]]:
        batch: list[int] = []
        lengths = [len(one.ids) for one in inputs]
        for place in sorted(range(len(inputs)), key=lengths.__getitem__):
            full = len(batch) == self.max_requests or (len(batch) + 1) * lengths[place] > self._batch_tokens
            if batch and full:
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _run(self, inputs: list[Tokens], finish: Callable[[Any, Any], Any]) -> list[Any]:
        import torch

        shape = len(inputs), max(len(one.ids) for one in inputs)
        padded = torch.full(shape, self._pad, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        kinds = torch.zeros(shape, dtype=torch.long)
        for row, (ids, second) in enumerate(inputs):
            padded[row, : len(ids)] = torch.tensor(ids)
            mask[row, : len(ids)] = 1
            if second:
                kinds[row, len(ids) - second : len(ids)] = 1
        mask = mask.to(self._device)
        told: dict[str, Any] = {"input_ids": padded.to(self._device), "attention_mask": mask}
        if any(one.second for one in inputs):
            told["token_type_ids"] = kinds.to(self._device)
        with torch.inference_mode():
            return finish(self._model(**told), mask).tolist()  # type: ignore[no-any-return]

    def stop(self) -> None:
        """End the thread and wait until it is gone. Blocking."""
        self._thread.shutdown(cancel_futures=True)
