"""Run the simulated engine: admission by slots, timed tokens, faults on demand."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator

from trunnion import ChoiceDelta, EngineInfo, GenerateEvent, GenerateRequest, LoadReport, TokenizerRef, Usage
from trunnion.errors import AdapterNotFound, Cancelled, ConfigError, ContextOverflow, EngineDead, Overloaded, Transient

from . import CAPABILITIES
from .config import SimConfig
from .slots import Slots
from .tokens import WORDS, count_prompt_tokens, draws, prompt_text

_SLOWDOWN = 10


class SimEngine:
    """Simulate an engine; the same seed, prompt and sampling seed give the same tokens."""

    def __init__(self, model: str | None, config: SimConfig) -> None:
        self._model = model or "sim"
        self._config = config
        self._slots = Slots(config.slots, config.max_waiting)
        self._dead: EngineDead | None = None
        self._stopped = asyncio.Event()
        self._started = False
        self._vocabulary = 0

    async def start(self) -> EngineInfo:
        """Wait the settable start-up time and describe the engine."""
        if self._started:
            raise ConfigError("this engine was started before; build a new one from its spec")
        self._started = True
        config = self._config
        await asyncio.sleep(config.startup_seconds)
        capabilities = CAPABILITIES
        tokenizer = None
        if config.tokenizer is not None:
            from .ids import tokenizer_size, with_token_ids

            self._vocabulary = await asyncio.to_thread(tokenizer_size, config.tokenizer)
            capabilities = with_token_ids(capabilities)
            tokenizer = TokenizerRef(path=config.tokenizer)
        return EngineInfo(
            engine="sim",
            model=self._model,
            context_length=config.context_length,
            tokenizer=tokenizer,
            concurrency=config.slots,
            capabilities=capabilities,
            adapters=config.adapters,
            library="trunnion-sim",
            emits_text=tokenizer is None,
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield simulated tokens; refusals come with the first ``__anext__``."""
        self._check(request)
        config = self._config
        struck = bool(config.fault) and config.fault_marker in prompt_text(request)
        if struck and config.fault == "refuse":
            raise Overloaded("the simulated engine refuses this request on demand", retry_after=1.0)
        slow = _SLOWDOWN if struck and config.fault == "slow" else 1
        async with self._slots.hold(request.priority):
            await self._sleep(config.ttft * slow)
            produced = 0
            for index, tokens, choice_ends, last in self._schedule(request):
                if struck and produced >= config.fault_after:
                    await self._strike()
                if produced:
                    await self._sleep(config.tpot * slow * len(tokens))
                produced += len(tokens)
                usage = None
                if last:
                    usage = Usage(prompt_tokens=count_prompt_tokens(request), completion_tokens=produced)
                yield GenerateEvent(choices=(self._delta(request, index, tokens, ends=choice_ends),), usage=usage)
                self._check_alive()

    def _check(self, request: GenerateRequest) -> None:
        self._check_alive()
        config = self._config
        if request.adapter is not None and request.adapter not in config.adapters:
            raise AdapterNotFound(f"no adapter is called {request.adapter!r}", param="model")
        tokens = count_prompt_tokens(request)
        if tokens + (request.sampling.max_tokens or 1) > config.context_length:
            raise ContextOverflow(
                f"{tokens} prompt tokens and {request.sampling.max_tokens or 1} to generate exceed the context length "
                f"of {config.context_length}; shorten the prompt or lower max_tokens",
                param="messages",
                details={"prompt_tokens": tokens, "context_length": config.context_length},
            )

    def _check_alive(self) -> None:
        if self._dead is not None:
            raise EngineDead(self._dead.message)
        if self._stopped.is_set():
            raise Cancelled("the engine was stopped")

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but wake at once when the engine stops or dies."""
        if seconds <= 0:
            await asyncio.sleep(0)
        else:
            try:
                async with asyncio.timeout(seconds):
                    await self._stopped.wait()
            except TimeoutError:
                pass
        self._check_alive()

    async def _strike(self) -> None:
        fault = self._config.fault
        if fault == "die":
            raise Transient("the simulated engine broke this stream on demand")
        if fault == "crash":
            self._dead = EngineDead("the simulated engine crashed on demand")
            self._stopped.set()
            raise EngineDead(self._dead.message)
        if fault == "hang":
            await self._stopped.wait()
            self._check_alive()

    def _schedule(self, request: GenerateRequest) -> Iterator[tuple[int, list[int], bool, bool]]:
        """Yield choice index, token numbers, whether the choice ends and whether the request ends with them."""
        sampling = request.sampling
        length = sampling.max_tokens or self._config.default_max_tokens
        streams = [deque(self._tokens(request, index, length)) for index in range(sampling.n)]
        width = length if request.delivery == "final" else self._config.tokens_per_event
        while any(streams):
            for index, stream in enumerate(streams):
                tokens = [stream.popleft() for _ in range(min(width, len(stream)))]
                if tokens:
                    yield index, tokens, not stream, not any(streams)

    def _tokens(self, request: GenerateRequest, index: int, length: int) -> list[int]:
        text = prompt_text(request)
        if self._config.output == "echo" and not self._vocabulary:
            return list(range(min(length, len(text.split()) or 1)))
        seed = f"{self._config.seed}/{request.sampling.seed}/{request.adapter}/{index}/{text}"
        source = draws(seed)
        if self._vocabulary:
            return [(next(source) << 8 | next(source)) % self._vocabulary for _ in range(length)]
        return [next(source) % len(WORDS) for _ in range(length)]

    def _delta(self, request: GenerateRequest, index: int, tokens: list[int], *, ends: bool) -> ChoiceDelta:
        words = prompt_text(request).split() or [""]
        if self._vocabulary:
            text = ""
        elif self._config.output == "echo":
            text = "".join(words[token] + " " for token in tokens)
        else:
            text = "".join(WORDS[token] + " " for token in tokens)
        if request.adapter is not None:
            text = text.upper()
        return ChoiceDelta(index=index, text=text, token_ids=tokens, finish_reason="length" if ends else None)

    def load(self) -> LoadReport:
        """Return the slots in use and the queue, as of now."""
        return LoadReport(
            running=self._slots.running,
            waiting=self._slots.waiting,
            timestamp=time.monotonic(),
            capacity=self._config.slots,
        )

    async def check_health(self) -> None:
        """Return if alive. Raises :class:`EngineDead` after a crash."""
        if self._dead is not None:
            raise EngineDead(self._dead.message)

    async def stop(self, *, drain: float = 0.0) -> None:
        """Wait up to ``drain`` seconds for requests in flight, then end them with Cancelled."""
        if drain > 0 and not self._stopped.is_set():
            try:
                async with asyncio.timeout(drain):
                    await self._slots.idle()
            except TimeoutError:
                pass
        self._stopped.set()
