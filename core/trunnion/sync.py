"""Run pipelines from plain synchronous code: a loop on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from .completion import Completion
from .errors import ConfigError
from .pipeline import Pipeline
from .registry import engine_spec
from .requests import ChatMessage, GenerateRequest, MessagesPrompt, Prompt, SamplingParams, TextPrompt, TokensPrompt
from .spec import EngineSpec, PipelineSpec

T = TypeVar("T")
logger = logging.getLogger("trunnion.sync")
_PATIENCE = 10.0
"""Seconds that ``close()`` waits for tasks that do not heed their cancellation, and then for the thread."""


class LoopThread:
    """Run an event loop on a daemon thread; :meth:`run` waits for a coroutine, :meth:`submit` does not.

    Engines live on such a loop wherever the caller's own loop may be blocked or is not there at all.
    """

    def __init__(
        self,
        name: str = "trunnion-loop",
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self.loop = loop_factory()
        self._closing = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._closing:
            try:
                self.loop.run_forever()
            except BaseException:  # a task raised SystemExit: its waiters still want their answers
                logger.exception("a task tried to end the loop of %s", self._thread.name)

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Schedule a coroutine on the loop and return at once. Raises :class:`ConfigError` after ``close()``."""
        if self.loop.is_closed():
            coroutine.close()
            raise ConfigError("this loop was closed; open a new pipeline")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and return its result; Ctrl-C cancels it.

        Raises:
            ConfigError: Called from the loop itself, which could never answer, or after ``close()``.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise ConfigError("run() was called on the loop's own thread; await the coroutine instead")
        future = self.submit(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is left, then end the loop and the thread. Idempotent; gives a stuck task ten seconds."""
        if self.loop.is_closed():
            return
        try:
            self.submit(_cancel_rest()).result(timeout=_PATIENCE)
        except TimeoutError:
            logger.warning("%s is stuck and left behind", self._thread.name)
        self._closing = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=_PATIENCE)
        if not self._thread.is_alive():
            self.loop.close()


async def _cancel_rest() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


class SyncPipeline:
    """Use a pipeline from synchronous code, as a context manager."""

    def __init__(self, spec: PipelineSpec | EngineSpec) -> None:
        self._thread = LoopThread()
        try:
            self.pipeline = self._thread.run(_opened(spec))
        except BaseException:
            self._thread.close()
            raise

    def complete(self, requests: Sequence[GenerateRequest]) -> list[Completion]:
        """Run requests side by side, and return their completions in order. Raises the first error."""
        return self._thread.run(_complete_all(self.pipeline, requests))

    def close(self) -> None:
        """Stop the engine and end its thread. Idempotent."""
        if not self._thread.loop.is_closed():
            try:
                self._thread.run(self.pipeline.stop())
            finally:
                self._thread.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


async def _opened(spec: PipelineSpec | EngineSpec) -> Pipeline:
    pipeline = Pipeline(spec)
    await pipeline.start()  # which stops the engine again if it fails
    return pipeline


async def _complete_all(pipeline: Pipeline, requests: Sequence[GenerateRequest]) -> list[Completion]:
    tasks = [asyncio.ensure_future(pipeline.complete(request)) for request in requests]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def as_prompt(value: str | Sequence[ChatMessage] | Prompt) -> Prompt:
    """Turn a string into a user's message and a list into a conversation; a prompt stays as it is."""
    if isinstance(value, str):
        return MessagesPrompt(messages=({"role": "user", "content": value},))
    if isinstance(value, MessagesPrompt | TextPrompt | TokensPrompt):
        return value
    return MessagesPrompt(messages=tuple(value))


def generate(
    prompts: str | Sequence[ChatMessage] | Prompt | Sequence[str | Sequence[ChatMessage] | Prompt],
    *,
    engine: str = "auto",
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    adapter: str | None = None,
    **sampling: Any,
) -> Any:
    """Start an engine, run prompts, stop it, and return text. For scripts; services keep a pipeline open.

    Args:
        prompts: One prompt or a list of them: a string (a user's message), a conversation, or a prompt value.
        engine: Name of the engine plugin; "auto" takes the one that suits best.
        model: Path or name of the model.
        config: The engine's configuration.
        adapter: LoRA adapter to answer with.
        sampling: Fields of :class:`SamplingParams`, such as ``max_tokens=64, temperature=0``; ``n`` must be 1.

    Returns:
        A string for one prompt, a list of strings for a list of prompts.

    Raises:
        TrunnionError: Whatever went wrong first.
    """
    many = not isinstance(prompts, str) and isinstance(prompts, Sequence) and not _is_conversation(prompts)
    items: Sequence[Any] = prompts if many else [prompts]  # type: ignore[assignment]
    unknown = sorted(set(sampling) - set(SamplingParams.__dataclass_fields__))
    if unknown:
        raise ConfigError(f"unknown sampling parameter {unknown[0]!r}; see trunnion.SamplingParams", param=unknown[0])
    params = SamplingParams(**sampling)
    if params.n != 1:
        raise ConfigError("generate() returns one text per prompt; for n > 1 use SyncPipeline.complete", param="n")
    requests = [
        GenerateRequest(prompt=as_prompt(item), sampling=params, delivery="final", adapter=adapter) for item in items
    ]
    with SyncPipeline(engine_spec(engine, model, config)) as pipeline:
        texts = [completion.text for completion in pipeline.complete(requests)]
    return texts if many else texts[0]


def _is_conversation(value: Sequence[Any]) -> bool:
    return bool(value) and isinstance(value[0], Mapping)
