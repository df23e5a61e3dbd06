"""A small engine that keeps the contract, and one for each way to break it: ``broken-<fault>``."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

import trunnion as t
from trunnion.capabilities import FEATURES
from trunnion.errors import AdapterNotFound, Cancelled, ContextOverflow, EngineDead, InvalidArgument

CONTEXT = 2048
WORDS = ("amber", "beacon", "cedar", "delta", "ember", "fjord", "grove", "harbor", "indigo", "juniper", "kelp", "oak")
YES = {
    "sampling.max_tokens", "sampling.n", "sampling.seed", "sampling.temperature", "sampling.ignore_eos",
    "sampling.min_tokens", "adapter",
}  # fmt: skip
CAPABILITIES = t.Capabilities.of(
    yes=YES,
    no=[feature for feature in FEATURES if feature not in YES],
    prompts=("messages", "text"),
    protocols=("reports_load/1", "probes_health/1"),
)
FAULTS = {
    "none": set(),
    "two-terminal-events": {"test_one_terminal_event_and_nothing_after_it[delta]"},
    "cumulative-deltas": {"test_deltas_concatenate_to_the_full_text"},
    "delta-after-the-end": {"test_one_terminal_event_and_nothing_after_it[delta]"},
    "no-finish-reason": {
        "test_one_terminal_event_and_nothing_after_it[delta]",
        "test_one_terminal_event_and_nothing_after_it[final]",
        "test_usage_adds_up_over_choices",
        "test_prompt_kind[messages]",
        "test_prompt_kind[text]",
        "test_field[sampling.max_tokens]",
        "test_field[sampling.min_tokens]",
        "test_field[sampling.ignore_eos]",
    },
    "final-in-pieces": {"test_final_delivery_is_one_event"},
    "swallows-cancellation": {
        "test_cancelling_the_task_frees_its_slot[delta]",
        "test_cancelling_the_task_frees_its_slot[final]",
    },
    "leaks-slots": {
        "test_closing_a_stream_frees_its_slot",
        "test_cancelling_the_task_frees_its_slot[delta]",
        "test_cancelling_the_task_frees_its_slot[final]",
        "test_answers_come_after_many_were_given_up",
        "test_a_deadline_ends_the_request",
    },
    "wrong-usage": {
        "test_usage_adds_up[delta]",
        "test_usage_adds_up[final]",
        "test_usage_adds_up_over_choices",
        "test_deltas_concatenate_to_the_full_text",
        "test_field[sampling.max_tokens]",
        "test_field[sampling.min_tokens]",
        "test_field[sampling.ignore_eos]",
    },
    "usage-of-one-choice": {"test_usage_adds_up_over_choices"},
    "blocks-the-loop": {"test_the_event_loop_stays_free"},
    "blocks-for-each-token": {"test_the_event_loop_stays_free"},
    "computes-for-each-token": {"test_the_event_loop_stays_free"},
    "drops-a-field": {"test_field[sampling.seed]"},
    "counts-no-prompt": {"test_a_longer_prompt_counts_more"},
    "choices-alike": {"test_field[sampling.n]"},
    "choices-of-a-seed-alike": {"test_field[sampling.n]"},
    "draws-once-and-for-all": {"test_unseeded_answers_vary"},
    "wants-content": {"test_prompt_kind[messages]"},
    "takes-a-slot-at-once": {
        "test_nothing_is_taken_before_the_first_event",
        "test_a_deadline_ends_the_request",  # one that has passed begins no stream
        "test_closing_a_stream_frees_its_slot",  # requests refused before hold slots still
    },
    "foreign-exceptions": {"test_wrong_requests_are_refused_in_our_words[unknown adapter]"},
    "errors-that-do-not-pickle": {"test_wrong_requests_are_refused_in_our_words[unknown adapter]"},
    "drops-extras": {"test_wrong_requests_are_refused_in_our_words[unknown extra]"},
    "mixes-streams": {"test_eight_streams_keep_apart", "test_one_failure_touches_no_neighbour"},
    "leaves-tasks": {"test_many_requests_leave_nothing_behind"},
    "stop-leaves-requests-hanging": {"test_stopping_ends_what_is_in_flight"},
    "starts-after-stop": {"test_stopping_before_starting"},
    "load-stands-still": {"test_load_reports_move"},
    "health-lies": {"test_a_stopped_engine_is_not_healthy"},
    "leaves-a-field-out": {"test_every_field_of_a_request_is_classified"},
    "widens-at-start": {"test_start_only_narrows", "test_field[priority]"},
    "hides-a-protocol": {"test_protocols_that_are_there_are_declared"},
    "declares-what-is-not-there": {
        "test_declared_protocols_are_there",
        "test_the_prefix_cache_is_forgotten",
    },
    "takes-any-setting": {"test_unknown_settings_are_refused"},
    "describes-nothing": {"test_every_setting_is_described"},
    "impure-resources": {"test_resources_are_pure_and_light"},
}
EXPECTED = {**FAULTS, "imports-its-library": {"test_registering_imports_nothing_heavy"}}
"""The tests that each must fail, and no other. The last one registers from a module of its own."""


class Config(t.PluginConfig):
    step: float = Field(0.001, description="Seconds per token.")
    fails: str = Field("", description="What start() fails with; empty where it does not.")


class Loose(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)
    step: float = Field(0.001, description="Seconds per token.")


class Silent(t.PluginConfig):
    step: float = 0.001


class Unpicklable(AdapterNotFound):
    def __reduce__(self):
        return type(self), ("something else",)


def plugin(fault):
    capabilities = CAPABILITIES
    if fault == "leaves-a-field-out":
        capabilities = replace(
            capabilities, features={f: s for f, s in capabilities.features.items() if f != "handoff"}
        )
    if fault == "hides-a-protocol":
        capabilities = replace(capabilities, protocols=frozenset({"reports_load/1"}))
    if fault == "declares-what-is-not-there":
        capabilities = replace(capabilities, protocols=capabilities.protocols | {"resets_cache/1"})
    return t.EnginePlugin(
        name=f"broken-{fault}",
        factory=f"broken_engines:build_{fault.replace('-', '_')}",
        summary="An engine for the kit's own tests",
        config={"takes-any-setting": Loose, "describes-nothing": Silent}.get(fault, Config),
        capabilities=capabilities,
        resources=_impure if fault == "impure-resources" else None,
        needs_model=False,
        model_files=False,
    )


def _impure(config):
    return t.Resources(bundles=(t.Bundle(memory=time.perf_counter_ns()),))


@t.hookimpl
def trunnion_engines():
    return [plugin(fault) for fault in FAULTS]


class Engine:
    def __init__(self, fault, config):
        self.fault, self.step, self.fails = fault, config.step, getattr(config, "fails", "")
        self.running, self.slots = 0, asyncio.Semaphore(100)
        self.stopped = asyncio.Event()
        self.last = {}
        self.tasks = []
        self.frozen = None

    async def start(self):
        if self.stopped.is_set() and self.fault != "starts-after-stop":
            raise EngineDead("stopped")
        if self.fails:
            raise RuntimeError(self.fails)
        capabilities = plugin(self.fault).capabilities
        if self.fault == "widens-at-start":
            capabilities = replace(capabilities, features={**capabilities.features, "priority": t.Support.YES})
        return t.EngineInfo(
            engine=f"broken-{self.fault}", model="none", context_length=CONTEXT, concurrency=50,
            capabilities=capabilities, library="none 1", adapters=("a", "b"),
        )  # fmt: skip

    def generate(self, request):
        if self.fault == "takes-a-slot-at-once":
            self.running += 1
            return self._generate(request, taken=True)
        return self._generate(request)

    async def _generate(self, request, *, taken=False):
        self._check(request)
        if self.fault == "wants-content" and isinstance(request.prompt, t.MessagesPrompt):
            [message["content"].strip() for message in request.prompt.messages]
        if not taken:
            self.running += 1
        held = True
        try:
            async with self.slots if self.fault != "leaks-slots" else _Leaky(self.slots):
                async for event in self._events(request):
                    if event.usage is not None:
                        self.last.pop(text_of(request), None)
                    if event.usage is not None and held:
                        held = False
                        self.running -= 1
                    yield event
        except asyncio.CancelledError:
            if self.fault != "swallows-cancellation":
                raise
        finally:
            if held and self.fault != "leaks-slots":
                self.running -= 1

    def _check(self, request):
        if self.stopped.is_set():
            raise EngineDead("stopped")
        if request.adapter not in (None, "a", "b"):
            if self.fault == "foreign-exceptions":
                raise KeyError(request.adapter)
            kind = Unpicklable if self.fault == "errors-that-do-not-pickle" else AdapterNotFound
            raise kind(f"no adapter is called {request.adapter!r}", param="model")
        if request.extra and self.fault != "drops-extras":
            raise InvalidArgument("this engine takes no extras", param="extra")
        if len(text_of(request).split()) + (request.sampling.max_tokens or 1) > CONTEXT:
            raise ContextOverflow("too long", param="prompt")

    def _tokens(self, request, index):
        s = request.sampling
        hot = (s.temperature or 0) > 0
        seed = None if self.fault == "drops-a-field" else s.seed
        fresh = request.request_id if seed is None and self.fault != "draws-once-and-for-all" else ""
        if self.fault == "choices-alike" or (self.fault == "choices-of-a-seed-alike" and seed is not None):
            index = 0
        drawn = f"{seed}{index}{fresh}" if hot else ""
        length = 30 if s.ignore_eos is False else 10**9
        length = min(max(length, s.min_tokens or 0), s.max_tokens or 64)
        digest = hashlib.sha256(f"{text_of(request)}/{request.adapter}/{drawn}".encode()).digest()
        return [digest[i % 32] % len(WORDS) for i in range(length)], length

    async def _events(self, request):
        s, fault = request.sampling, self.fault
        if fault == "blocks-the-loop" and 40 < (s.max_tokens or 0) < 100:
            time.sleep(0.7)
        if fault == "leaves-tasks":
            self.tasks.append(asyncio.ensure_future(self.stopped.wait()))
        streams = [self._tokens(request, index) for index in range(s.n)]
        total = sum(len(tokens) for tokens, _ in streams)
        counted = len(streams[0][0]) if fault == "usage-of-one-choice" else total
        prompt = 1 if fault == "counts-no-prompt" else len(text_of(request).split())
        usage = t.Usage(prompt_tokens=prompt, completion_tokens=counted - (fault == "wrong-usage" and s.n == 1))
        if request.delivery == "final":
            await self._sleep(self.step * max(length for _, length in streams))
            deltas = tuple(self._delta(tokens, request, i, ends=True) for i, (tokens, _) in enumerate(streams))
            if fault == "final-in-pieces":
                yield t.GenerateEvent(choices=deltas)
                yield t.GenerateEvent(usage=usage)
            else:
                yield t.GenerateEvent(choices=deltas, usage=usage)
            return
        longest = max(length for _, length in streams)
        said = ""
        for place in range(longest):
            await self._sleep(self.step)
            self._hold_up(s)
            live = [(i, tokens) for i, (tokens, _) in enumerate(streams) if place < len(tokens)]
            if fault == "mixes-streams":
                self.last[text_of(request)] = streams[0][0][place : place + 1]
                others = [tokens for prompt, tokens in self.last.items() if prompt != text_of(request)]
                if others and others[0]:
                    streams[0][0][place : place + 1] = others[0]
            deltas = tuple(
                self._delta(tokens[place : place + 1], request, i, ends=place == len(tokens) - 1) for i, tokens in live
            )
            if fault == "cumulative-deltas":
                said += deltas[0].text
                deltas = (replace(deltas[0], text=said), *deltas[1:])
            last = place == longest - 1
            yield t.GenerateEvent(choices=deltas, usage=usage if last and fault != "delta-after-the-end" else None)
        if fault == "two-terminal-events":
            yield t.GenerateEvent(usage=usage)
        if fault == "delta-after-the-end":
            yield t.GenerateEvent(choices=(t.ChoiceDelta(token_ids=()),), usage=usage)

    def _hold_up(self, sampling):
        if self.fault == "blocks-for-each-token":
            time.sleep(0.001)
        if self.fault == "computes-for-each-token" and sampling.max_tokens == 48:
            began = time.thread_time()
            while time.thread_time() - began < 0.02:
                pass

    def _delta(self, tokens, request, index, *, ends):
        reason = None
        if ends and self.fault != "no-finish-reason":
            reason = "length" if len(self._tokens(request, 0)[0]) == (request.sampling.max_tokens or 64) else "stop"
        text = "".join(WORDS[token] + " " for token in tokens)
        return t.ChoiceDelta(index=index, text=text, token_ids=tokens, finish_reason=reason)

    async def _sleep(self, seconds):
        if self.fault == "stop-leaves-requests-hanging" and self.stopped.is_set():
            await asyncio.Event().wait()
        try:
            await asyncio.wait_for(self.stopped.wait(), seconds)
        except TimeoutError:
            return
        if self.fault == "stop-leaves-requests-hanging":
            await asyncio.Event().wait()
        raise Cancelled("the engine was stopped")

    def load(self):
        if self.fault == "load-stands-still":
            self.frozen = self.frozen or t.LoadReport(running=0, waiting=0, timestamp=time.monotonic())
            return self.frozen
        return t.LoadReport(running=self.running, waiting=0, timestamp=time.monotonic())

    async def check_health(self):
        if self.stopped.is_set() and self.fault != "health-lies":
            raise EngineDead("stopped")

    async def stop(self, *, drain=0.0):
        self.stopped.set()
        for task in self.tasks:
            task.cancel()


class _Leaky:
    """Take a slot, and give it back only where all goes well."""

    def __init__(self, slots):
        self.slots = slots

    async def __aenter__(self):
        await self.slots.acquire()

    async def __aexit__(self, kind, error, trace):
        if kind is None:
            self.slots.release()


def text_of(request):
    prompt = request.prompt
    if isinstance(prompt, t.TextPrompt):
        return prompt.text
    return "\n".join(str(message.get("content")) for message in prompt.messages)


def _build(fault):
    return lambda _model, config: Engine(fault, config)


for _fault in EXPECTED:
    globals()[f"build_{_fault.replace('-', '_')}"] = _build(_fault)
