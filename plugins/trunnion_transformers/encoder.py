"""Run an encoder in padded batches on one thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NamedTuple

from trunnion.errors import ConfigError, InternalError

from .config import TransformersConfig
from .loading import Loaded
from .sizes import CPU_BATCH_TOKENS, CPU_REQUESTS_APART, GPU_REQUESTS

_GPU_BATCH_TOKENS: Final = 16384
_ROUND: Final = 4
"""Batches that are made up at once: of more inputs, those of like length are found more easily."""


class Tokens(NamedTuple):
    """Hold one input's token ids, and how many of them are the second of two texts where the model tells them apart."""

    ids: list[int]
    second: int = 0


Finish = Callable[[Any, Any], Any]
"""Takes the model's output and the mask of tokens, and returns a tensor with a row per input."""


class _Call:
    """Hold what is left of one call: inputs that wait for their turn, and where their rows go."""

    __slots__ = ("finish", "key", "left")

    def __init__(self, key: object, finish: Finish, inputs: Sequence[Tokens]) -> None:
        loop = asyncio.get_running_loop()
        self.key = key
        self.finish = finish
        self.left: deque[tuple[Tokens, asyncio.Future[Any]]] = deque((one, loop.create_future()) for one in inputs)


class _Taken(NamedTuple):
    """Hold an input whose turn it is."""

    finish: Finish
    tokens: Tokens
    row: asyncio.Future[Any]


class Encoder:
    """Hold an encoder and the thread that runs it. What several calls ask for goes through the model together."""

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
        self._calls: list[_Call] = []
        self._work: asyncio.Future[None] | None = None
        self._stopped = False
        self._thread = ThreadPoolExecutor(
            1, thread_name_prefix="trunnion-transformers-encode", initializer=self._set_threads
        )

    def _set_threads(self) -> None:
        if self._threads is not None:
            import torch

            torch.set_num_threads(self._threads)

    async def encode(self, inputs: Sequence[Tokens], finish: Finish, key: object = None) -> list[Any]:
        """Return a row of numbers per input, in order.

        Inputs of like length go together, those of other calls with the same ``key`` among them, whose ``finish`` does
        the same; no call waits for all of another.
        """
        if not inputs:
            return []
        call = _Call(key, finish, inputs)
        rows = [row for _, row in call.left]
        self._calls.append(call)
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._run_calls())
        try:
            return list(await asyncio.gather(*rows))
        except BaseException:
            call.left.clear()
            raise

    async def _run_calls(self) -> None:
        taken: list[_Taken] = []
        try:
            while self._calls:
                taken = self._next_round()
                for places in self._batches([one.tokens for one in taken]):
                    batch = [taken[i] for i in places if not taken[i].row.done()]
                    if self._stopped:
                        return
                    if batch:
                        await self._run_batch(batch)
        finally:  # stopped: nobody may wait for ever
            calls, self._calls = self._calls, []
            for row in [one.row for one in taken] + [row for call in calls for _, row in call.left]:
                row.cancel()

    def _next_round(self) -> list[_Taken]:
        """Take inputs of the first call and of those like it, one of each in turn, up to a few batches full."""
        key, size = self._calls[0].key, _ROUND * self.max_requests
        taken: list[_Taken] = []
        alike = [call for call in self._calls if call.key == key and call.left]
        while alike and len(taken) < size:
            taken += [_Taken(call.finish, *call.left.popleft()) for call in alike]
            alike = [call for call in alike if call.left]
        rest = [call for call in self._calls if call.left]
        self._calls = sorted(rest, key=lambda call: call.key == key)  # those that had their turn go behind the others
        return taken

    async def _run_batch(self, batch: list[_Taken]) -> None:
        loop = asyncio.get_running_loop()
        inputs = [one.tokens for one in batch]
        try:
            made = await loop.run_in_executor(self._thread, self._run, inputs, batch[0].finish)
        except Exception as error:  # noqa: BLE001 - told to everyone who waits for it
            for one in batch:
                if not one.row.done():
                    failure = InternalError(f"the encoder failed: {error}")
                    failure.__cause__ = error
                    one.row.set_exception(failure)
            return
        for one, numbers in zip(batch, made, strict=True):
            if not one.row.done():
                one.row.set_result(numbers)

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

    def _run(self, inputs: list[Tokens], finish: Finish) -> list[Any]:
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
        self._stopped = True
        self._thread.shutdown(cancel_futures=True)
