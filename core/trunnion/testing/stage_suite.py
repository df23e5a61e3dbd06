"""Assemble the suite that a stage plugin passes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ClassVar, cast

import pytest

from trunnion.capabilities import FEATURES
from trunnion.completion import Completion
from trunnion.engine import EngineInfo
from trunnion.errors import TrunnionError
from trunnion.events import ChoiceDelta, GenerateEvent
from trunnion.plugin import StagePlugin
from trunnion.registry import get_registry
from trunnion.requests import GenerateRequest, TextPrompt
from trunnion.stage import Stage, StageContext, StreamStage, Transducer

from .registration import RegistrationChecks

Stream = tuple[GenerateRequest, Sequence[GenerateEvent]]
_THREADS = 8


class StageSuite(RegistrationChecks, standard=True):
    """Hold a stage plugin to the contract, by its shape.

    A subclass names the plugin. For a request stage it gives a class-scoped fixture ``requests``: requests that the
    stage changes, at least two. For a stream stage it gives ``streams``: pairs of a request that the stage has work
    for and the events of its answer, text deltas that the kit cuts into pieces in every way.

    Attributes:
        plugin: The stage's name.
        config: Its settings.
        info: The engine it is built for, such as one with the tokenizer that it needs.
        cuts: Whether text may be cut at will. False for a stage that reads token ids, which cannot be cut.
    """

    kind: ClassVar[str] = "stage"
    info: ClassVar[EngineInfo] = EngineInfo(engine="kit", model="kit")
    cuts: ClassVar[bool] = True

    @pytest.fixture(scope="class")
    @classmethod
    def requests(cls) -> list[GenerateRequest]:
        """Return requests for a request stage."""
        return []

    @pytest.fixture(scope="class")
    @classmethod
    def streams(cls) -> list[Stream]:
        """Return requests and the events of their answers, for a stream stage."""
        return []

    @pytest.fixture
    def items(self, requests: list[GenerateRequest]) -> list[GenerateRequest]:
        """Return the requests where the stage is a request stage."""
        return requests if self._plugin.shape == "request" else []

    @pytest.fixture
    def answers(self, streams: list[Stream]) -> list[Stream]:
        """Return the streams where the stage is a stream stage."""
        return streams if self._plugin.shape == "stream" else []

    @property
    def _plugin(self) -> StagePlugin:
        return get_registry().stage(self.plugin)

    def _build(self) -> Stage | StreamStage:
        return get_registry().build_stage(self.plugin, StageContext(info=self.info), self.config)

    def test_it_has_the_shape_it_declares(self) -> None:
        """A request stage processes, a stream stage opens; what it supplies are features there are."""
        stage, plugin = self._build(), self._plugin
        assert isinstance(stage, Stage if plugin.shape == "request" else StreamStage)
        assert set(plugin.supplies) <= set(FEATURES)

    def test_there_is_something_to_test(self, requests: list[GenerateRequest], streams: list[Stream]) -> None:
        """The suite gives the stage work."""
        if self._plugin.shape == "request":
            if len(requests) < 2 or list(self._process(requests)) == list(requests):
                self.lacking("give a fixture `requests`: two or more that the stage changes")
        elif not any(self._open(one) is not None for one, _ in streams):
            self.lacking("give a fixture `streams`: pairs (request, events) that the stage has work for")

    def _process(self, requests: Sequence[GenerateRequest]) -> Sequence[GenerateRequest | TrunnionError]:
        return cast("Stage", self._build()).process(requests)

    def _open(self, request: GenerateRequest) -> Transducer | None:
        return cast("StreamStage", self._build()).open(request)

    # Request stages.

    def test_one_result_per_item_in_order(self, items: list[GenerateRequest]) -> None:
        """Requests come back in order, each a request or its error, and those that went in are untouched."""
        before = list(items)
        results = list(self._process(items)) if items else []
        assert len(results) == len(items)
        for asked, result in zip(before, results, strict=True):
            assert isinstance(result, GenerateRequest | TrunnionError)
            if isinstance(result, GenerateRequest):
                assert result.request_id == asked.request_id, "results are out of order, or lost their identifiers"
        assert items == before

    def test_nothing_comes_of_nothing(self, items: list[GenerateRequest]) -> None:
        """No items give no results."""
        if items:
            assert list(self._process([])) == []

    def test_it_produces_what_it_declares(self, items: list[GenerateRequest]) -> None:
        """A stage that converts prompts takes the kind it consumes and gives the kind it produces."""
        plugin = self._plugin
        for asked, result in zip(items, self._process(items) if items else (), strict=True):
            if isinstance(result, GenerateRequest):
                assert result.prompt.kind == (plugin.produces or asked.prompt.kind)
                assert plugin.consumes in (None, asked.prompt.kind)

    def test_items_do_not_depend_on_each_other(self, items: list[GenerateRequest]) -> None:
        """A request gives the same alone, in a batch, and beside one that fails."""
        if not items:
            return
        wrong = replace(items[0], prompt=TextPrompt(text="")) if self._plugin.consumes else items[0]
        together = self._process([*items, wrong])[: len(items)]
        alone = [self._process([one])[0] for one in items]
        assert [_said(one) for one in together] == [_said(one) for one in alone]

    def test_threads_may_share_it(self, items: list[GenerateRequest]) -> None:
        """Several threads at once get what one gets."""
        if not items:
            return
        stage = cast("Stage", self._build())
        expected = [_said(one) for one in stage.process(items)]
        with ThreadPoolExecutor(_THREADS) as pool:
            results = pool.map(lambda _: [_said(one) for one in stage.process(items)], range(4 * _THREADS))
            assert all(result == expected for result in results)

    def test_it_is_synchronous(self) -> None:
        """``process``, ``open``, ``feed`` and ``finish`` are plain functions: nobody awaits them."""
        stage = self._build()
        verb = stage.process if isinstance(stage, Stage) else stage.open
        assert not inspect.iscoroutinefunction(verb)
        assert not inspect.isasyncgenfunction(verb)

    # Stream stages.

    def test_nothing_to_do_costs_nothing(self, answers: list[Stream]) -> None:
        """``open()`` gives a transducer, or None where there is nothing to do."""
        for request, _ in answers:
            made = self._open(request)
            assert made is None or isinstance(made, Transducer)
            assert made is None or made.done is False

    def test_pieces_make_the_same_whole(self, answers: list[Stream]) -> None:
        """However an answer is cut into deltas, what comes out is the same in the end."""
        for request, events in answers:
            whole = _run(self._open(request), [_joined(events)])
            assert _shown(_run(self._open(request), events)) == _shown(whole)
            if not self.cuts:
                continue
            for size in (1, 2, 3, 7):
                assert _shown(_run(self._open(request), _cut(events, size))) == _shown(whole), f"cut every {size}"

    def test_usage_and_reasons_survive(self, answers: list[Stream]) -> None:
        """What the engine counted goes through, and each choice has one finish reason."""
        for request, events in answers:
            answer = _run(self._open(request), events)
            transducer_ended = answer.usage is None
            assert transducer_ended or answer.usage == events[-1].usage
            assert all(choice.finish_reason for choice in answer.choices)

    def test_streams_do_not_mix(self, answers: list[Stream]) -> None:
        """Two streams of one stage, fed in turn, are what they are alone."""
        if not answers:
            return
        stage = cast("StreamStage", self._build())
        request, events = answers[0]
        alone = _shown(_run(stage.open(request), events))
        first, second = stage.open(request), stage.open(replace(request, request_id="kit-second"))
        if first is None or second is None:
            return
        sides: tuple[list[GenerateEvent], list[GenerateEvent]] = ([], [])
        for event in events:
            for transducer, out in zip((first, second), sides, strict=True):
                if not transducer.done:
                    out.extend(transducer.feed(event))
        for transducer, out in zip((first, second), sides, strict=True):
            out.extend(transducer.finish())
        assert [_shown(_completion(out)) for out in sides] == [alone, alone]


def _said(result: GenerateRequest | TrunnionError) -> object:
    return result if isinstance(result, GenerateRequest) else (type(result), str(result))


def _completion(events: Sequence[GenerateEvent]) -> Completion:
    completion = Completion()
    for event in events:
        completion.add(event)
    return completion


def _run(transducer: Transducer | None, events: Sequence[GenerateEvent]) -> Completion:
    """Feed events until the transducer is done, flush it, and return what came out."""
    if transducer is None:
        return _completion(events)
    out: list[GenerateEvent] = []
    for event in events:
        out.extend(transducer.feed(event))
        if transducer.done:
            break
    out.extend(transducer.finish())
    return _completion(out)


def _shown(completion: Completion) -> list[tuple[object, ...]]:
    """Return what a user sees of each choice; identifiers of tool calls are drawn anew every time."""
    return [
        (
            choice.text,
            choice.reasoning,
            [(call.name, call.arguments) for call in choice.tool_calls],
            choice.finish_reason,
            choice.stop_reason,
        )
        for choice in completion.choices
    ]


def _joined(events: Sequence[GenerateEvent]) -> GenerateEvent:
    """Return all as one event, as ``delivery="final"`` gives it."""
    completion = _completion(events)
    choices = tuple(
        ChoiceDelta(
            index=choice.index,
            text=choice.text,
            token_ids=tuple(choice.token_ids),
            reasoning=choice.reasoning,
            logprobs=None if choice.logprobs is None else tuple(choice.logprobs),
            finish_reason=choice.finish_reason,
            stop_reason=choice.stop_reason,
        )
        for choice in completion.choices
    )
    return GenerateEvent(choices=choices, usage=completion.usage)


def _cut(events: Sequence[GenerateEvent], size: int) -> list[GenerateEvent]:
    """Cut the text of an answer into deltas of so many characters; the last carries the finish reason and usage."""
    cut: list[GenerateEvent] = []
    whole = _joined(events)
    for choice in whole.choices:
        pieces = [choice.text[at : at + size] for at in range(0, len(choice.text), size)] or [""]
        for place, piece in enumerate(pieces):
            last = place == len(pieces) - 1
            delta = ChoiceDelta(index=choice.index, text=piece, token_ids=choice.token_ids if last else ())
            if last:
                delta = replace(delta, finish_reason=choice.finish_reason, stop_reason=choice.stop_reason)
            cut.append(GenerateEvent(choices=(delta,)))
    cut[-1] = replace(cut[-1], usage=whole.usage)
    return cut
