"""Check the optional protocols that an engine declares."""

from __future__ import annotations

import asyncio
import io
import math
import wave
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import pytest

from trunnion.engine import (
    AdapterRef,
    Embedding,
    Embeds,
    EmitsKVEvents,
    HotAdapters,
    Relays,
    ResetsCache,
    Sleeps,
)
from trunnion.errors import AdapterNotFound, TrunnionError, UnsupportedFeature
from trunnion.requests import Prompt, TextPrompt

from . import advice
from ._guard import Suite
from .asking import Ask, drained
from .mount import Mount

_RATE = 16_000
"""Samples a second."""
_TEXTS = ("The sea is calm today.", "A train leaves the station.", "The sea is calm today.")


class ExtraChecks(Suite):
    """Hold for hot adapters, embeddings and whatever else is declared.

    A protocol that is not declared is not looked for here: that it is refused, or absent, is another test's.

    Attributes:
        adapters: LoRA adapters of the model, name to path; the engine spec may hold them already.
    """

    adapters: ClassVar[Mapping[str, str]] = {}

    def _declares(self, mount: Mount, protocol: str) -> bool:
        return protocol in mount.info.capabilities.protocols

    def test_adapters_are_loaded_and_unloaded_while_it_generates(self, ask: Ask) -> None:
        """An adapter is loaded, used and unloaded while streams run; afterwards it is not found."""
        mount = ask.mount
        if not self._declares(mount, "hot_adapters/1"):
            return
        engine = cast("HotAdapters", mount.engine)
        if not self.adapters:
            self.lacking(f"hot_adapters/1 is declared; {advice.ADAPTERS}")
        path = next(iter(self.adapters.values()))
        plain = ask().text

        async def change() -> tuple[str, list[str], list[str], str]:
            beside = asyncio.ensure_future(drained(mount, ask.prepared(**ask.long())))
            await engine.load_adapter(AdapterRef(name="kit-adapter", path=path))
            await engine.load_adapter(AdapterRef(name="kit-adapter", path=path))  # idempotent
            there = [adapter.name for adapter in await engine.list_adapters()]
            adapted = (await mount.pipeline.complete(ask.request(adapter="kit-adapter"))).text
            base = (await mount.pipeline.complete(ask.request())).text
            await engine.unload_adapter("kit-adapter")
            gone = [adapter.name for adapter in await engine.list_adapters()]
            with pytest.raises(AdapterNotFound):
                await mount.pipeline.complete(ask.request(adapter="kit-adapter"))
            with pytest.raises(AdapterNotFound):
                await engine.unload_adapter("kit-adapter")
            await beside
            return adapted, there, gone, base

        adapted, there, gone, base = mount.run(change(), timeout=300)
        assert "kit-adapter" in there
        assert "kit-adapter" not in gone
        assert adapted
        assert base == plain, "loading an adapter changes the base model's answers"

    def test_an_adapter_that_is_not_there(self, mounted: Mount) -> None:
        """Loading an adapter from nowhere is an error of the tree."""
        if self._declares(mounted, "hot_adapters/1"):
            engine = cast("HotAdapters", mounted.engine)
            with pytest.raises(TrunnionError):
                mounted.run(engine.load_adapter(AdapterRef(name="nothing", path="/nonexistent/adapter")))

    def test_adapters_side_by_side(self, ask: Ask) -> None:
        """The base model and every adapter at once answer as they do alone."""
        if not self.adapters or not ask.accepts("adapter"):
            return
        asked: list[dict[str, Any]] = [{}, *({"adapter": name} for name in self.adapters)]
        alone = [ask(**fields).text for fields in asked]
        assert ask.texts(*asked, *asked) == [*alone, *alone]

    def test_it_sleeps_and_wakes(self, ask: Ask) -> None:
        """After sleeping and waking the answer is the same."""
        if self._declares(ask.mount, "sleeps/1"):
            engine = cast("Sleeps", ask.mount.engine)
            before = ask().text
            ask.mount.run(engine.sleep(level=1))
            ask.mount.run(engine.wake())
            assert ask().text == before

    def test_the_prefix_cache_is_forgotten(self, ask: Ask) -> None:
        """After a reset no prefix is cached."""
        if self._declares(ask.mount, "resets_cache/1"):
            engine = cast("ResetsCache", ask.mount.engine)
            prompt = ask.repeated()
            for _ in range(2):
                warm = ask(prompt, max_tokens=1).usage
            assert ask.mount.run(_forgotten(engine)), "nothing runs, and the cache is not forgotten"
            cold = ask(prompt, max_tokens=1).usage
            assert warm is not None
            assert cold is not None
            assert cold.cached_tokens == 0
            assert warm.cached_tokens > 0

    def test_kv_events_follow_a_request(self, ask: Ask) -> None:
        """A long prompt stores blocks, and the events' numbers never fall."""
        if not self._declares(ask.mount, "emits_kv_events/1"):
            return
        mount, engine = ask.mount, cast("EmitsKVEvents", ask.mount.engine)

        async def listen() -> list[Mapping[str, Any]]:
            seen: list[Mapping[str, Any]] = []

            async def keep() -> None:
                async for event in engine.kv_events():
                    seen.append(event)  # noqa: PERF401 - read while it grows

            listener = asyncio.ensure_future(keep())
            await asyncio.sleep(0.2)
            request = ask.request(ask.variant(7) if ask.prompt.kind == "token_ids" else ask.repeated(), max_tokens=4)
            await mount.pipeline.complete(request.with_(cache_salt="kit-events"))
            for _ in range(50):
                if any(event["type"] == "stored" for event in seen):
                    break
                await asyncio.sleep(0.1)
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
            return seen

        events = mount.run(listen())
        stored = [event for event in events if event["type"] == "stored"]
        assert stored
        assert all({"block_hashes", "token_ids", "block_size"} <= set(event) for event in stored)
        for rank in {event.get("rank", 0) for event in events}:
            numbers = [event["seq"] for event in events if event.get("rank", 0) == rank]
            assert numbers == sorted(numbers)

    def test_embeddings(self, embedding_mount: Mount | None, mounted: Mount) -> None:
        """One vector per prompt, in order: equal for equal texts, different for others, as long as asked for."""
        mount = embedding_mount or mounted
        if not self._declares(mount, "embeds/1"):
            if "embeds/1" in mount.plugin.capabilities.protocols:
                self.lacking(f"embeds/1 is declared; {advice.EMBEDDING}")
            with pytest.raises(UnsupportedFeature):
                mount.run(mount.pipeline.embed([TextPrompt(text="Hello")]))
            return
        prompts = [TextPrompt(text=text) for text in _TEXTS]
        first, other, same = embed(mount, prompts)
        assert len(first.vector) == len(other.vector) > 1
        assert list(first.vector) != list(other.vector)
        assert all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(first.vector, same.vector, strict=True))
        assert first.usage.prompt_tokens >= 1
        assert first.usage.completion_tokens == 0
        try:
            short = embed(mount, prompts[:1], dimensions=2)
        except TrunnionError as refusal:
            assert refusal.http_status == 400  # noqa: PT017 - refused or honoured
        else:
            assert len(short[0].vector) == 2

    def test_scores(self, embedding_mount: Mount | None, mounted: Mount) -> None:
        """One score per text, in order, equal for equal texts; an engine that scores nothing says so."""
        mount = embedding_mount or mounted
        if not self._declares(mount, "scores/1"):
            with pytest.raises(UnsupportedFeature):
                mount.run(mount.pipeline.score(_TEXTS[0], _TEXTS))
            return
        try:
            same, other, again = mount.run(mount.pipeline.score(_TEXTS[0], _TEXTS))
        except UnsupportedFeature:
            assert _depends(mount, "scores/1"), "scores/1 is declared without a reason why it may be refused"
            return
        assert math.isclose(same.value, again.value, abs_tol=1e-3)
        assert not math.isclose(same.value, other.value, abs_tol=1e-6)

    def test_labels(self, classifier_mount: Mount | None, mounted: Mount) -> None:
        """The probabilities of a prompt's labels add up; an engine that classifies nothing says so."""
        mount, prompts = classifier_mount or mounted, [TextPrompt(text=text) for text in _TEXTS]
        if not self._declares(mount, "classifies/1"):
            with pytest.raises(UnsupportedFeature):
                mount.run(mount.pipeline.classify(prompts))
            return
        try:
            first, other, same = mount.run(mount.pipeline.classify(prompts))
        except UnsupportedFeature:
            assert _depends(mount, "classifies/1"), "classifies/1 is declared without a reason why it may be refused"
            return
        assert list(first.probabilities) == list(other.probabilities), "labels come in one order"
        assert all(math.isclose(sum(one.probabilities.values()), 1.0, abs_tol=0.01) for one in (first, other))
        pairs = zip(first.probabilities.values(), same.probabilities.values(), strict=True)
        assert all(math.isclose(a, b, abs_tol=1e-3) for a, b in pairs)

    def test_transcriptions(self, mounted: Mount) -> None:
        """Audio becomes text, in whatever language is named; an engine that transcribes nothing says so."""
        hear = mounted.pipeline.transcribe
        if not self._declares(mounted, "transcribes/1"):
            with pytest.raises(UnsupportedFeature):
                mounted.run(hear(_tone(), mime_type="audio/wav"))
            return
        try:
            found = mounted.run(hear(_tone(), mime_type="audio/wav"))
            named = mounted.run(hear(_tone(), mime_type="audio/wav", language="en"))
        except UnsupportedFeature:
            assert _depends(mounted, "transcribes/1"), (
                "transcribes/1 is declared without a reason why it may be refused"
            )
            return
        assert isinstance(found.text, str)
        assert isinstance(named.text, str)
        assert min(found.usage.prompt_tokens, found.usage.completion_tokens) >= 0

    def test_a_relay_raises_error_statuses(self, mounted: Mount) -> None:
        """What the endpoint refuses is an error of the tree, whatever its body."""
        if self._declares(mounted, "relays/1"):
            with pytest.raises(TrunnionError):
                mounted.run(cast("Relays", mounted.engine).relay({}, path="no/such/path"))


def _tone() -> bytes:
    """Return a second of a tone of 440 Hz, as a WAV file."""
    samples = (int(8000 * math.sin(2 * math.pi * 440 * at / _RATE)) for at in range(_RATE))
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(b"".join(sample.to_bytes(2, "little", signed=True) for sample in samples))
    return made.getvalue()


def _depends(mount: Mount, protocol: str) -> bool:
    """Tell whether the engine said of a protocol that it declares on what it depends."""
    return protocol in mount.info.capabilities.reasons


async def _forgotten(engine: ResetsCache) -> bool:
    """Reset the cache as soon as the blocks of what has just ended are free."""
    for _ in range(50):
        if await engine.reset_prefix_cache():
            return True
        await asyncio.sleep(0.05)
    return False


def embed(mount: Mount, prompts: Sequence[Prompt], *, dimensions: int | None = None) -> list[Embedding]:
    """Embed through the pipeline."""
    assert isinstance(mount.engine, Embeds), "embeds/1 is declared, not implemented"
    return mount.run(mount.pipeline.embed(prompts, dimensions=dimensions))
