"""Check the events of an engine: when they come, what they add up to, and that streams keep apart."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from trunnion.errors import TrunnionError
from trunnion.requests import TokensPrompt

from . import advice
from ._guard import Suite
from .asking import Ask, drained, whole
from .loop_watch import watched
from .mount import best_of

_STALL = 0.5
"""Seconds of silence on the event loop that no engine may cause."""


class StreamChecks(Suite):
    """Hold for the events of one request, and of several at once."""

    @pytest.mark.trunnion_restart
    def test_nothing_is_taken_before_the_first_event(self, ask: Ask) -> None:
        """``generate()`` alone takes no slot and refuses nothing; both come with the first ``__anext__``."""
        mount = ask.mount
        request = ask.prepared(**ask.long())
        wrong = request.with_(adapter="no-such-adapter")

        async def begin() -> tuple[Any, Any]:
            before = mount.load()
            generators = [mount.engine.generate(request), mount.engine.generate(wrong)]
            for _ in range(3):
                await asyncio.sleep(0.01)
            after = mount.load()
            for generator in generators:
                await generator.aclose()
            return before, after

        before, after = mount.run(begin())
        if before is not None:
            assert (after.running, after.waiting) == (before.running, before.waiting)

    @pytest.mark.parametrize("delivery", ["delta", "final"])
    def test_one_terminal_event_and_nothing_after_it(self, ask: Ask, delivery: str) -> None:
        """Usage comes once, on the very last event; each choice has one finish reason, and nothing after it."""
        events = ask.events(delivery=delivery)
        assert events, "the engine yielded nothing"
        assert [event.usage is not None for event in events] == [False] * (len(events) - 1) + [True]
        finished: set[int] = set()
        for event in events:
            for choice in event.choices:
                assert choice.index not in finished, "a delta came after the choice's finish reason"
                if choice.finish_reason is not None:
                    finished.add(choice.index)
        assert finished == {0}

    def test_final_delivery_is_one_event(self, ask: Ask) -> None:
        """``delivery="final"`` gives all in one event."""
        assert len(ask.events(delivery="final")) == 1

    def test_deltas_concatenate_to_the_full_text(self, ask: Ask) -> None:
        """Deltas are what is new, never cumulative: joined they are the answer that comes in one piece."""
        streamed, final = ask(delivery="delta"), ask(delivery="final")
        joined, expected = streamed.choices[0], final.choices[0]
        assert joined.text == expected.text, (
            f"the deltas join to {joined.text[:80]!r}, the answer in one piece is {expected.text[:80]!r}; "
            "a delta must hold new text only"
        )
        assert list(joined.token_ids) == list(expected.token_ids), "a delta must hold new token ids only"
        if joined.token_ids:
            assert streamed.usage is not None
            assert len(joined.token_ids) == streamed.usage.completion_tokens

    @pytest.mark.parametrize("delivery", ["delta", "final"])
    def test_usage_adds_up(self, ask: Ask, delivery: str) -> None:
        """Usage counts the prompt as sent and the tokens as delivered."""
        request = ask.prepared(delivery=delivery)
        answer = whole(ask.mount.run(drained(ask.mount, request)))
        usage = answer.usage
        assert usage is not None
        if isinstance(request.prompt, TokensPrompt):
            assert usage.prompt_tokens == len(request.prompt.token_ids)
        assert usage.prompt_tokens >= 1
        assert 0 <= usage.cached_tokens <= usage.prompt_tokens
        if any(choice.token_ids for choice in answer.choices):
            assert usage.completion_tokens == sum(len(choice.token_ids) for choice in answer.choices)
        if ask.accepts("sampling.max_tokens"):
            assert 1 <= usage.completion_tokens <= (request.sampling.max_tokens or 0)

    def test_a_longer_prompt_counts_more(self, ask: Ask) -> None:
        """``prompt_tokens`` grow with the prompt."""
        counts = []
        for prompt in (ask.short(), ask.repeated()):
            usage = ask(prompt, **ask.only_if("sampling.max_tokens", max_tokens=1)).usage
            assert usage is not None
            counts.append(usage.prompt_tokens)
        short, long = counts
        assert short < long, f"prompt_tokens is {short} for a short prompt, and {long} for one many times as long"

    def test_usage_adds_up_over_choices(self, ask: Ask) -> None:
        """With ``n`` the prompt is counted once, and the completion tokens of all choices together."""
        if not ask.accepts("sampling.n"):
            refused(ask, "sampling.n", n=2)
            return
        fields = {**ask.long(), "max_tokens": 4, **ask.only_if("sampling.temperature", temperature=1.0)}
        one, three = ask(**fields), ask(**fields, n=3)  # greedy choices would be alike, and some engines refuse them
        assert one.usage is not None
        assert three.usage is not None
        assert [choice.index for choice in three.choices] == [0, 1, 2]
        assert all(choice.finish_reason for choice in three.choices)
        assert three.usage.prompt_tokens == one.usage.prompt_tokens
        if ask.accepts("sampling.ignore_eos"):
            assert three.usage.completion_tokens == 3 * one.usage.completion_tokens == 12
        else:
            assert 3 <= three.usage.completion_tokens <= 12

    def test_eight_streams_keep_apart(self, ask: Ask) -> None:
        """Eight different answers made side by side are what they are alone."""
        asked: list[dict[str, Any]] = [{"prompt": ask.variant(number), "max_tokens": 6 + number} for number in range(8)]
        alone = [ask(**fields).text for fields in asked]
        assert len(set(alone)) > 1, (
            f"every answer ended within 6 tokens or the answers do not differ; {advice.LONG_PROMPT}"
        )
        assert ask.texts(*asked) == alone

    def test_unseeded_answers_vary(self, ask: Ask) -> None:
        """Without a seed, sampling draws anew each time, unless the engine's own ``seed`` is set."""
        settings = ask.mount.settings()
        if getattr(settings, "seed", None) is not None:
            return
        if not (ask.accepts("sampling.temperature") and ask.accepts("sampling.seed")):
            return
        fields = {**ask.long(), "max_tokens": 24, "temperature": 2.0}
        texts = [ask(**fields).text for _ in range(4)]
        assert len(set(texts)) > 1, "at temperature 2, without a seed, four answers are one and the same: draw anew"

    def test_the_event_loop_stays_free(self, ask: Ask) -> None:
        """While the engine works, others on its event loop are not kept waiting."""
        mount, fields = ask.mount, {**ask.long(), "max_tokens": 48}
        requests = [ask.prepared(ask.variant(number), **fields) for number in range(4)]

        async def attempt() -> str | None:
            longest, last = 0.0, time.monotonic()
            with watched() as held:
                working = asyncio.gather(*(drained(mount, request) for request in requests))
                while not working.done():
                    await asyncio.sleep(0.005)
                    now = time.monotonic()
                    longest, last = max(longest, now - last), now
                wrong = held.wrong()
            await working
            return wrong if longest < _STALL else f"the event loop was blocked for {longest:.1f} s"

        wrong = mount.run(best_of(attempt))
        assert wrong is None, f"{wrong}; work that blocks belongs on a thread"

    def test_load_reports_move(self, ask: Ask) -> None:
        """The load report counts a request while it runs, and forgets it when it has ended."""
        mount = ask.mount
        if mount.load() is None:
            assert "reports_load/1" not in mount.plugin.capabilities.protocols
            return

        async def watch() -> tuple[int, float, float, int]:
            before = mount.load()
            request = ask.prepared(**{**ask.long(), "max_tokens": 64})
            working = asyncio.ensure_future(drained(mount, request))
            seen = 0
            while not working.done():
                report = mount.load()
                assert report is not None
                seen = max(seen, report.running + report.waiting)
                await asyncio.sleep(0.001 if seen else 0)  # a fast engine is done within a millisecond
            await working
            after = await mount.settled()
            assert before is not None
            assert after is not None
            return seen, before.timestamp, after.timestamp, after.running + after.waiting

        seen, first, last, left = mount.run(watch())
        assert seen >= 1, "the report never counted a request that ran"
        assert last > first, "the report's timestamp stands still"
        assert left == 0, "the report still counts requests that have ended"


def refused(ask: Ask, feature: str, **fields: Any) -> TrunnionError:
    """Return the typed refusal of a request; fails the test where it is served, or refused otherwise."""
    from trunnion.errors import UnsupportedFeature

    with pytest.raises(UnsupportedFeature) as caught:
        ask(**fields)
    assert caught.value.param is not None
    assert caught.value.param in feature, f"the refusal names {caught.value.param!r}, not {feature!r}"
    return caught.value
