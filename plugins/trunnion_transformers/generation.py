"""Run the library's generation thread, and bridge it to the event loop: one call per step, none per token."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, Final, Literal

from trunnion.errors import EngineDead, TrunnionError

from . import _hf
from .adapters import AdapterSwitch
from .config import TransformersConfig
from .loading import Loaded
from .sampler import Sampler
from .sizes import choose_sizes
from .stream import Stream
from .turns import Turns

_DEAD: Final = "the transformers engine died: {}; build a new one from its spec"
_ENDED: Final = "its thread ended"


class Generation:
    """Hold the library's manager. Made on a worker thread, then used from one event loop, which :meth:`open` names."""

    kind: Literal["generate"] = "generate"

    def __init__(self, loaded: Loaded, config: TransformersConfig) -> None:
        """Allocate the cache. Raises what the library raises where the model or the sizes do not suit it."""
        self.switch: Any = AdapterSwitch(loaded.model)
        self.turns = Turns(config.adapter_turn_steps)
        self._why: str | None = None
        self._cause: BaseException | None = None
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._streams: dict[str, tuple[Stream, int]] = {}
        self._numbers = itertools.count()
        if config.attention == "auto" and loaded.device == "cpu" and _hf.takes_our_attention(loaded.model):
            loaded.model.set_attn_implementation(_hf.ATTENTION)
        self._settings = settings(loaded, config)
        self._manager: Any = _hf.Manager(
            loaded.model,
            settings=self._settings,
            eos=loaded.eos,
            sampler=Sampler(config.seed, loaded.device),
            received=self._received,
            failed=self._failed,
            turns=self.turns,
            activate=self.switch.activate,
            ended=self._ended,
            threads=config.threads,
        )
        self.room = self._manager.prepare()
        self.max_requests = int(self._manager.continuous_batching_config.max_requests_per_batch)

    @property
    def details(self) -> dict[str, Any]:
        """Return the sizes that hold, as JSON values."""
        resolved = self._manager.continuous_batching_config
        return {name: getattr(resolved, name) for name in self._settings}

    @property
    def dead(self) -> EngineDead | None:
        """Return what to raise once the thread ended by itself; None while all is well."""
        if self._why is None:
            return None
        error = EngineDead(_DEAD.format(self._why))
        error.__cause__ = self._cause
        return error

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the thread."""
        self._loop = loop
        self._manager.start()

    def snapshot(self) -> tuple[int, float]:
        """Return the requests in the last step and the share of the cache in use after it."""
        running, usage = self._manager.scheduler.snapshot
        return int(running), float(usage)

    @property
    def alive(self) -> bool:
        """Tell whether the thread runs."""
        return bool(self._manager is not None and self._manager.is_running())

    def submit(self, stream: Stream, token_ids: list[int], max_tokens: int) -> list[str]:
        """Hand a request's choices to the library; return their names, for :meth:`cancel`.

        Raises:
            EngineDead: The thread ended.
        """
        names = []
        for choice in stream.choices:
            name = f"{next(self._numbers)}"
            self._streams[name] = (stream, choice.index)
            names.append(name)
            plan = choice.plan
            taken = self._manager.add_request(token_ids, name, max_tokens, eos_token_id=list(plan.ends), plan=plan)
            if taken is None:
                self.cancel(names)
                raise self.dead or EngineDead(_DEAD.format(_ENDED))
        return names

    def cancel(self, names: list[str]) -> None:
        """Give up what has not finished of these; the library frees their cache before its next step."""
        for name in names:
            if self._streams.pop(name, None) is not None:
                self._manager.cancel_request(name)

    async def call(self, function: Callable[[], Any]) -> Any:
        """Run a function on the generation thread, between two steps.

        Raises:
            EngineDead: The thread ended first.
        """
        future = asyncio.wrap_future(self._manager.call(function))
        try:
            return await future
        except asyncio.CancelledError as error:
            if future.cancelled() and (self.dead or not self.alive):
                raise self.dead or EngineDead("the transformers engine was stopped") from error
            raise

    def fail_all(self, make: Callable[[], TrunnionError]) -> None:
        """End every stream, each with an error of its own."""
        streams, self._streams = self._streams, {}
        for stream, _ in streams.values():
            stream.fail(make())

    def stop(self) -> None:
        """End the thread and wait until it is gone; what it still does goes nowhere. Blocking."""
        self._stopped = True
        if self._loop is not None:
            self._manager.stop(block=True, hard_stop=True)
        self._manager.destroy()
        self._manager = self.switch = None  # they hold this object too: the model is freed now, not by a collection

    # Called by the engine's thread.

    def _received(self, outputs: list[_hf.Output]) -> None:
        self._post(self._take, outputs)

    def _failed(self, name: str, error: Exception) -> None:
        self._post(self._fail_one, name, error)

    def _ended(self, error: BaseException | None) -> None:
        self._post(self._die, error)

    def _post(self, function: Callable[..., None], *args: Any) -> None:
        loop = self._loop
        if loop is None or self._stopped:
            return
        try:
            loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop was closed without stop(); nobody is left to be told
            self._stopped = True

    # Called on the event loop.

    def _take(self, outputs: list[_hf.Output]) -> None:
        for name, tokens, finished in outputs:
            found = self._streams.pop(name, None) if finished else self._streams.get(name)
            if found is not None:
                stream, index = found
                stream.put(index, tokens, finished=finished)

    def _fail_one(self, name: str, error: Exception) -> None:
        found = self._streams.pop(name, None)
        if found is not None:
            failure = EngineDead(_DEAD.format(f"{type(error).__name__}: {error}"))
            failure.__cause__ = error
            found[0].fail(failure)

    def _die(self, error: BaseException | None) -> None:
        if self._stopped:
            return
        if self._why is None:
            self._why = _ENDED if error is None else f"{type(error).__name__}: {error}"
            self._cause = error
        self.fail_all(lambda: self.dead or EngineDead(_DEAD.format(_ENDED)))


def settings(loaded: Loaded, config: TransformersConfig) -> dict[str, Any]:
    """Return the fields of ContinuousBatchingConfig for a model: sizes first, then what was passed on."""
    import psutil

    described = loaded.model.config.get_text_config()
    heads = getattr(described, "num_key_value_heads", None) or described.num_attention_heads
    width = getattr(described, "head_dim", None) or described.hidden_size // described.num_attention_heads
    sizes = choose_sizes(
        config,
        device=loaded.device,
        model_len=loaded.context,
        bytes_per_token=2 * described.num_hidden_layers * heads * width * loaded.model.dtype.itemsize,
        free_bytes=psutil.virtual_memory().available,
        square=_hf.attention_of(loaded.model) != _hf.ATTENTION,
    )
    return {
        "page_size": sizes.page_size,
        "num_blocks": sizes.num_blocks,
        "max_batch_tokens": sizes.max_batch_tokens,
        "max_requests_per_batch": sizes.max_requests_per_batch,
        "auto_switch_to_flash": config.attention == "auto" and loaded.device == "cuda",
        **config.engine_kwargs,
    }
