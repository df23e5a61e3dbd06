"""Run the simulated engine: admission by slots, timed tokens, faults on demand."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import NamedTuple

from trunnion import ChoiceDelta, EngineInfo, GenerateEvent, GenerateRequest, LoadReport, TokenizerRef, Usage
from trunnion.errors import (
    AdapterNotFound,
    Cancelled,
    ConfigError,
    ContextOverflow,
    EngineDead,
    Overloaded,
    Transient,
    TrunnionError,
)

from . import CAPABILITIES
from .config import SimConfig
from .slots import Slots
from .tokens import WORDS, choose, count_prompt_tokens, prompt_text

_SLOWDOWN = 10


class _Chunk(NamedTuple):
    """Hold one event's delta, and whether the request ends with it."""

    delta: ChoiceDelta
    last: bool


class SimEngine:
    """Simulate an engine; the same seed, prompt and sampling seed give the same tokens."""

    def __init__(self, model: str | None, config: SimConfig) -> None:
        self._model = model or "sim"
        self._config = config
        self._slots = Slots(config.slots, config.max_waiting)
        self._dead: EngineDead | None = None
        self._stopped = asyncio.Event()
        self._started = False
        self._stopping = False
        self._vocabulary = 0

    async def start(self) -> EngineInfo:
        """Wait the settable start-up time and describe the engine."""
        if self._started or self._stopping:
            raise ConfigError("this engine was started or stopped before; build a new one from its spec")
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
        config = self._config
        text = prompt_text(request)
        prompt_tokens = count_prompt_tokens(request)
        self._check(request, prompt_tokens)
        fault = config.fault if config.fault_marker in text else None
        if fault == "refuse":
            raise Overloaded("the simulated engine refuses this request on demand", retry_after=1.0)
        breaks = fault in ("die", "crash", "hang")
        slow = _SLOWDOWN if fault == "slow" else 1
        async with self._slots.hold(request.priority):
            self._check_alive()
            await self._sleep(config.ttft * slow)
            produced = 0
            for chunk in self._chunks(request, text, prompt_tokens):
                await self._sleep(config.tpot * slow * (len(chunk.delta.token_ids) - (not produced)))
                if breaks and (produced + len(chunk.delta.token_ids) > config.fault_after or chunk.last):
                    await self._strike()
                produced += len(chunk.delta.token_ids)
                if chunk.last:
                    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=produced)
                    yield GenerateEvent(choices=(chunk.delta,), usage=usage)
                    return
                yield GenerateEvent(choices=(chunk.delta,))
                self._check_alive()

    def _check(self, request: GenerateRequest, prompt_tokens: int) -> None:
        if self._dead is None and (self._stopping or self._stopped.is_set()):
            raise EngineDead("the engine was stopped; build a new one from its spec")
        self._check_alive()
        config = self._config
        if request.adapter is not None and request.adapter not in config.adapters:
            raise AdapterNotFound(f"no adapter is called {request.adapter!r}", param="model")
        wanted = request.sampling.max_tokens or 1
        if prompt_tokens + wanted > config.context_length:
            raise ContextOverflow(
                f"{prompt_tokens} prompt tokens and {wanted} to generate exceed the context length "
                f"of {config.context_length}; shorten the prompt or lower max_tokens",
                param="messages",
                details={"prompt_tokens": prompt_tokens, "context_length": config.context_length},
            )

    def _end(self) -> TrunnionError:
        """Return what ends the requests in flight."""
        return Cancelled("the engine was stopped") if self._dead is None else EngineDead(self._dead.message)

    def _check_alive(self) -> None:
        if self._stopped.is_set():
            raise self._end()

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
            self._slots.refuse_waiting(self._end)
            raise self._end()
        if fault == "hang":
            await self._stopped.wait()
            self._check_alive()

    def _chunks(self, request: GenerateRequest, text: str, prompt_tokens: int) -> Iterator[_Chunk]:
        """Yield what the events carry, the choices in turn."""
        config, sampling = self._config, request.sampling
        room = config.context_length - prompt_tokens
        length = sampling.max_tokens or min(config.default_max_tokens, room)
        words = text.split() or [""] if config.output == "echo" else WORDS
        streams = [deque(self._tokens(request, index, length, text)) for index in range(sampling.n)]
        stops = ["length" if len(stream) == length else "stop" for stream in streams]
        width = length if request.delivery == "final" else config.tokens_per_event
        while any(streams):
            for index, stream in enumerate(streams):
                tokens = [stream.popleft() for _ in range(min(width, len(stream)))]
                if tokens:
                    delta = ChoiceDelta(
                        index=index,
                        text=self._text(request, tokens, words),
                        token_ids=tokens,
                        finish_reason=None if stream else stops[index],  # type: ignore[arg-type]
                    )
                    yield _Chunk(delta, not any(streams))

    def _tokens(self, request: GenerateRequest, index: int, length: int, text: str) -> list[int]:
        sampling = request.sampling
        length = self._length(request, length, text)
        if self._config.output == "echo" and not self._vocabulary:
            words = len(text.split()) or 1
            return [position % words for position in range(length)]
        size = self._vocabulary or len(WORDS)
        best = choose(f"{self._config.seed}/None/{request.adapter}/0/{text}", size, length)
        if sampling.temperature == 0:
            return best
        drawn = f"{self._config.seed}/{sampling.seed}/{request.adapter}/{index}/{text}"
        if sampling.top_p is None or sampling.top_p == 1:
            return choose(drawn, size, length)
        nucleus = choose(drawn, max(1, round(sampling.top_p * size)), length)
        return [(first + offset) % size for first, offset in zip(best, nucleus, strict=True)]

    def _length(self, request: GenerateRequest, longest: int, text: str) -> int:
        """Return the tokens of a completion: up to its own end, unless the request says otherwise."""
        echo = self._config.output == "echo" and not self._vocabulary
        end = (len(text.split()) or 1) if echo else self._config.eos_after
        if end is None or request.sampling.ignore_eos:
            return longest
        return min(longest, max(end, request.sampling.min_tokens or 0))

    def _text(self, request: GenerateRequest, tokens: list[int], words: Sequence[str]) -> str:
        if self._vocabulary:
            return ""
        text = "".join(words[token] + " " for token in tokens)
        return text if request.adapter is None else text.upper()

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
        """Take no more, wait up to ``drain`` seconds for requests in flight, then end them with Cancelled."""
        self._stopping = True
        if drain > 0 and not self._stopped.is_set():
            try:
                async with asyncio.timeout(drain):
                    await self._slots.idle()
            except TimeoutError:
                pass
        self._stopped.set()
        self._slots.refuse_waiting(self._end)
