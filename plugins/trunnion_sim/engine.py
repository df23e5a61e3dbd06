"""Run the simulated engine on an event loop: requests in, timed tokens out, faults on demand."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trunnion import (
    AdapterRef,
    ChoiceDelta,
    Classification,
    Embedding,
    EngineInfo,
    GenerateEvent,
    GenerateRequest,
    KVLayout,
    LoadReport,
    Prompt,
    Score,
    StartupStage,
    TextPrompt,
    TokenizerRef,
    Transcription,
    Usage,
)
from trunnion.errors import (
    AdapterNotFound,
    Cancelled,
    ConfigError,
    EngineDead,
    Transient,
    TrunnionError,
    UnsupportedFeature,
)
from trunnion.timing import MARKS

from .capabilities import narrowed
from .clock import WallClock
from .config import SimConfig
from .core import SimCore
from .embedding import classify, cosine, embed
from .faults import BREAKS
from .hearing import audio_tokens, hear
from .intake import Intake, check_length
from .jobs import CoreEvent, Job
from .kv_blocks import HASH
from .kv_feed import KVFeed
from .speaker import Speaker
from .tokens import prompt_text, prompt_token_ids

_EXIT: Final = 70
"""Code of a process that the fault ``exit`` ends."""
_BREATH: Final = 8
"""Events after which a request that costs no time lets others have the loop."""


class _Reader:
    """Wait for a job to get on."""

    __slots__ = ("failure", "wanted", "wanting")

    def __init__(self) -> None:
        self.wanted = 0
        self.wanting: asyncio.Future[None] | None = None
        self.failure: TrunnionError | None = None

    def wake(self) -> None:
        if self.wanting is not None and not self.wanting.done():
            self.wanting.set_result(None)


class SimEngine:
    """Simulate an engine; the same seed, prompt and sampling seed give the same tokens."""

    def __init__(self, model: str | None, config: SimConfig) -> None:
        self._model = model or "sim"
        self._config = config
        self._feed = KVFeed() if config.kv_events else None
        self._core = SimCore(config, kv_log=None if self._feed is None else self._feed.log)
        self._intake = Intake(config, self._core.faults, Speaker(config))
        self._adapters = {name: AdapterRef(name=name, path="") for name in config.adapters}
        self._clock: WallClock | None = None
        self._jobs: set[Job] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._dead: EngineDead | None = None
        self._info: EngineInfo | None = None
        self._started = self._stopping = self._stopped = False
        self._report: LoadReport | None = None

    async def start(self) -> EngineInfo:
        """Wait the settable start-up time and describe the engine. A second call returns the same."""
        if self._info is not None and not self._stopping:
            return self._info
        if self._started or self._stopping:
            raise ConfigError("this engine was started or stopped before; build a new one from its spec")
        self._started = True
        config = self._config
        began = time.perf_counter()
        await asyncio.sleep(config.startup_seconds)
        if config.tokenizer is not None:
            from .vocabulary import Vocabulary

            vocabulary = await asyncio.to_thread(Vocabulary, config.tokenizer)
            self._intake = Intake(config, self._core.faults, Speaker(config, vocabulary))
        if self._stopping:
            raise Cancelled("the engine was stopped while it started")
        self._clock = WallClock(self._core, self._dispatch)
        layout = KVLayout(block_size=config.block_size, hash=HASH) if config.enable_prefix_caching else None
        self._info = EngineInfo(
            engine="sim",
            model=self._model,
            context_length=config.max_model_len,
            tokenizer=None if config.tokenizer is None else TokenizerRef(path=config.tokenizer),
            concurrency=self._capacity,
            capabilities=narrowed(config),
            adapters=config.adapters,
            data_parallel=config.data_parallel_size,
            kv_layout=layout,
            library="trunnion-sim",
            emits_text=config.tokenizer is None,
            startup=(StartupStage(name="pretend to load", seconds=time.perf_counter() - began),),
        )
        return self._info

    @property
    def _capacity(self) -> int:
        return self._config.max_num_seqs * self._config.data_parallel_size

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield simulated tokens; refusals come with the first ``__anext__``."""
        clock = self._alive()
        self._check_adapter(request.adapter)
        taken = self._intake.take(request, clock.now, _Reader())
        job, answers = taken.job, taken.answers
        self._enter(job, clock)
        try:
            width, length = job.chunk, job.output
            safe = length if job.halt_at is None else job.halt_at
            position = turn = 0
            while True:
                end = min(position + width, length)
                if job.progress < end or end > safe:
                    await self._reach(job, end)
                elif not turn % _BREATH:
                    await asyncio.sleep(0)
                turn += 1
                if self._stopped:
                    raise self._end()
                if end > safe:
                    await self._strike(job, taken.fault)
                if len(answers) == 1:
                    choices: tuple[ChoiceDelta, ...] = (answers[0].delta(position, end),)
                else:
                    choices = tuple([a.delta(position, end) for a in answers if position < max(1, len(a.ids))])
                if end < length:
                    yield GenerateEvent(choices=choices, prompt_tokens=job.prompt)
                    position = end
                    continue
                marks = MARKS.get()
                if marks is not None and job.admitted is not None:
                    marks.queued = job.admitted - job.arrived
                made = sum(len(answer.ids) for answer in answers)
                usage = Usage(prompt_tokens=job.prompt, completion_tokens=made, cached_tokens=job.cached or 0)
                yield GenerateEvent(choices=choices, usage=None if taken.fault == "no_usage" else usage)
                return
        finally:
            self._leave(job)

    def _check_adapter(self, name: str | None) -> None:
        if name is not None and name not in self._adapters:
            raise AdapterNotFound(f"no adapter is called {name!r}", param="model")

    def _alive(self) -> WallClock:
        """Return the clock. Raises :class:`EngineDead` before the start and after the end."""
        if self._dead is not None:
            raise self._end()
        if self._stopping:
            raise EngineDead("the engine was stopped; build a new one from its spec")
        if self._clock is None:
            raise EngineDead("the engine was not started; await start() first")
        return self._clock

    def _end(self) -> TrunnionError:
        """Return what ends the requests in flight."""
        return Cancelled("the engine was stopped") if self._dead is None else EngineDead(self._dead.message)

    def _enter(self, job: Job, clock: WallClock) -> None:
        self._jobs.add(job)
        self._idle.clear()
        try:
            clock.add(job)
        except BaseException:
            self._leave(job)
            raise

    def _leave(self, job: Job) -> None:
        self._jobs.discard(job)
        if not self._jobs:
            self._idle.set()
        if self._clock is not None and job.state in ("waiting", "running"):
            self._clock.remove(job)
            self._flush()

    async def _reach(self, job: Job, progress: int) -> None:
        """Wait until the job has made so many tokens, has ended or stands still."""
        reader: _Reader = job.owner
        reader.wanted = progress
        while job.progress < progress and not job.halted and job.ended is None and not self._stopped:
            reader.wanting = asyncio.get_running_loop().create_future()
            await reader.wanting

    def _dispatch(self, events: Sequence[CoreEvent]) -> None:
        self._flush()
        for kind, job, _ in events:
            if job is None:
                self._crash()
            elif kind != "tokens" or job.progress >= job.owner.wanted:
                job.owner.wake()

    def _flush(self) -> None:
        if self._feed is not None:
            self._feed.flush()

    async def _strike(self, job: Job, fault: str) -> None:
        """Break the stream, take the engine down, or stand still until it ends."""
        if fault == "die":
            raise Transient("the simulated engine broke this stream on demand")
        if fault == "exit":
            os._exit(_EXIT)
        if fault == "crash":
            self._crash()
        while not self._stopped:
            job.owner.wanting = asyncio.get_running_loop().create_future()
            await job.owner.wanting
        raise self._end()

    def _crash(self) -> None:
        self._dead = EngineDead("the simulated engine crashed on demand")
        self._halt()

    def _halt(self) -> None:
        """End everything."""
        self._stopped = True
        if self._clock is not None:
            self._clock.stop()
        for job in self._jobs:
            job.owner.wake()
        if self._feed is not None:
            self._feed.wake()

    def load(self) -> LoadReport:
        """Return what runs and waits: as of now, or as of the last report within ``load_report_interval``."""
        now = time.monotonic()
        report = self._report
        if report is None or now - report.timestamp >= self._config.load_report_interval:
            core = self._core
            report = self._report = LoadReport(
                running=core.running,
                waiting=core.waiting,
                timestamp=now,
                kv_cache_usage=core.kv_cache_usage,
                capacity=self._capacity,
                adapters=core.adapters,
            )
        return report

    async def check_health(self) -> None:
        """Return if alive. Raises :class:`EngineDead` after a crash, and before the start and after the end."""
        if self._dead is not None:
            raise EngineDead(self._dead.message)
        self._alive()

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return a unit vector per prompt; prompts that share words lie near each other.

        Raises:
            InvalidArgument: More dimensions are asked for than ``embedding_size``.
            ContextOverflow: A prompt does not fit.
        """
        clock = self._alive()
        self._check_adapter(adapter)
        return list(await asyncio.gather(*(self._embed(clock, prompt, dimensions, adapter) for prompt in prompts)))

    async def _embed(self, clock: WallClock, prompt: Prompt, dimensions: int | None, adapter: str | None) -> Embedding:
        text = prompt_text(prompt)
        ids = prompt_token_ids(prompt, text)
        vector = self._vector(ids, dimensions, adapter)
        return Embedding(vector=vector, usage=await self._pass(clock, text, len(ids), adapter))

    def _vector(self, ids: Sequence[int], dimensions: int | None = None, adapter: str | None = None) -> list[float]:
        config = self._config
        return embed(ids, size=config.embedding_size, dimensions=dimensions, seed=f"{config.seed}/{adapter}")

    async def _pass(self, clock: WallClock, text: str, tokens: int, adapter: str | None = None, made: int = 0) -> Usage:
        """Take the time of a prompt whose tokens come at once, if it makes any, and meet its fault.

        Returns what it cost.
        """
        rule = self._intake.strike(text, clock.now)
        check_length(tokens, made, self._config.max_model_len)
        slow = rule.factor if rule is not None and rule.kind == "slow" else 1.0
        broken = rule is not None and rule.kind in BREAKS
        job = Job(prompt=tokens, output=made, adapter=adapter, slow=slow, hold=broken, owner=_Reader())
        self._enter(job, clock)
        try:
            await self._reach(job, max(1, made))
            if self._stopped:
                raise self._end()
            if rule is not None and broken:
                await self._strike(job, rule.kind)
        finally:
            self._leave(job)
        return Usage(prompt_tokens=tokens, completion_tokens=made)

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Return the cosine of the query's and each text's embedding: 1 for the same words, around 0 for others.

        Raises:
            ContextOverflow: Query and text do not fit.
        """
        clock = self._alive()
        asked = self._words(query)
        return list(await asyncio.gather(*(self._score(clock, query, asked, text) for text in texts)))

    async def _score(self, clock: WallClock, query: str, asked: Sequence[int], text: str) -> Score:
        ids = self._words(text)
        usage = await self._pass(clock, f"{query}\n{text}", len(asked) + len(ids))
        return Score(value=cosine(self._vector(asked), self._vector(ids)), usage=usage)

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probabilities of ``labels`` per prompt; one that has a label's word leans towards it.

        Raises:
            ContextOverflow: A prompt does not fit.
        """
        clock = self._alive()
        labels = {label: self._vector(self._words(label)) for label in self._config.labels}
        return list(await asyncio.gather(*(self._classify(clock, prompt, labels) for prompt in prompts)))

    async def _classify(
        self, clock: WallClock, prompt: Prompt, labels: Mapping[str, Sequence[float]]
    ) -> Classification:
        text = prompt_text(prompt)
        ids = prompt_token_ids(prompt, text)
        usage = await self._pass(clock, text, len(ids))
        return Classification(probabilities=classify(self._vector(ids), labels), usage=usage)

    async def transcribe(self, audio: bytes, *, mime_type: str, language: str | None = None) -> Transcription:  # noqa: ARG002 - it takes any
        """Return words that depend on the bytes; the longer the file, the more. A fault's marker is looked for in them.

        Raises:
            ContextOverflow: The file and its words do not fit.
        """
        clock = self._alive()
        config = self._config
        words = await asyncio.to_thread(
            hear, audio, language=language, most=config.default_max_tokens, seed=str(config.seed)
        )
        usage = await self._pass(clock, audio.decode("latin-1"), audio_tokens(audio), made=len(words))
        return Transcription(text=" ".join(words), usage=usage)

    @staticmethod
    def _words(text: str) -> Sequence[int]:
        return prompt_token_ids(TextPrompt(text=text), text)

    async def load_adapter(self, adapter: AdapterRef) -> None:
        """Take an adapter and bring it into memory, which takes ``lora_load_seconds``. Idempotent for the same path.

        Nothing is read, but a path into the file system must exist.

        Raises:
            AdapterNotFound: It does not.
        """
        clock = self._alive()
        missing = adapter.path.startswith(("/", "./", "../")) and not Path(adapter.path).exists()  # noqa: ASYNC240
        if missing:
            raise AdapterNotFound(f"no adapter lies at {adapter.path}", param="path")
        if self._adapters.get(adapter.name) == adapter:
            return
        due = max(rank.adapters.ready_at(adapter.name, clock.now) or 0.0 for rank in self._core.ranks)
        await asyncio.sleep(max(0.0, due - clock.now))
        self._alive()
        self._adapters[adapter.name] = adapter

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; requests that run on it run on. Raises :class:`AdapterNotFound`."""
        self._alive()
        self._check_adapter(name)
        del self._adapters[name]
        for rank in self._core.ranks:
            rank.adapters.drop(name)

    async def list_adapters(self) -> list[AdapterRef]:
        """Return the adapters that may be asked for, in memory or not."""
        return list(self._adapters.values())

    async def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix; False, and none forgotten, where requests in flight hold some."""
        self._alive()
        done = self._core.reset_prefix_cache()
        self._flush()
        return done

    def kv_events(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the events of the prefix cache, from the first that is kept, until the engine ends.

        Raises:
            UnsupportedFeature: The setting ``kv_events`` is off.
        """
        if self._feed is None:
            raise UnsupportedFeature("the simulated engine publishes KV events with kv_events=True", param="kv_events")
        return self._feed.read(lambda: self._stopped)

    async def stop(self, *, drain: float = 0.0) -> None:
        """Take no more, wait up to ``drain`` seconds for requests in flight, then end them with Cancelled."""
        self._stopping = True
        if drain > 0 and not self._stopped:
            try:
                async with asyncio.timeout(drain):
                    await self._idle.wait()
            except TimeoutError:
                pass
        self._halt()
