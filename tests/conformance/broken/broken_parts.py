"""A stage, a router and hooks that keep their contracts, and one for each way to break them."""

from __future__ import annotations

import threading
from dataclasses import replace

import trunnion as t
from trunnion.errors import InvalidArgument

STAGES = {
    "none": set(),
    "reorders": {"test_one_result_per_item_in_order", "test_items_do_not_depend_on_each_other"},
    "loses-one": {"test_one_result_per_item_in_order", "test_it_produces_what_it_declares"},
    "remembers": {"test_items_do_not_depend_on_each_other", "test_threads_may_share_it"},
    "wrong-kind": {"test_it_produces_what_it_declares"},
    "fails-on-nothing": {"test_nothing_comes_of_nothing"},
}
STREAMS = {
    "none": set(),
    "looks-at-pieces": {"test_pieces_make_the_same_whole"},
    "loses-usage": {"test_usage_and_reasons_survive"},
    "shares-a-buffer": {"test_streams_do_not_mix"},
}
ROUTERS = {
    "none": set(),
    "forgets-one": {"test_every_usable_candidate_comes_once", "test_every_kind_of_prompt_is_routed"},
    "gives-no-reason": {"test_every_usable_candidate_comes_once"},
    "sends-to-weight-0": {"test_every_usable_candidate_comes_once"},
    "sticks": {"test_a_busy_replica_is_avoided"},
    "shares": {"test_instances_share_nothing"},
    "keeps-all": {"test_indexes_are_bounded"},
}
HOOKS = {
    "none": set(),
    "stray": {"test_methods_are_those_there_are"},
    "new-identity": {"test_requests_go_through", "test_requests_at_once_do_not_mix"},
    "foreign-exception": {"test_any_prompt_is_admitted_or_refused_in_our_words"},
    "observer-fails": {"test_observers_take_every_ending"},
}
_COMMON = {"summary": "For the kit's own tests"}


class Upper:
    """A request stage: text in capitals, and an error for none."""

    def __init__(self, fault):
        self.fault, self.seen, self.lock = fault, 0, threading.Lock()

    def process(self, items):
        if not items and self.fault == "fails-on-nothing":
            raise ValueError("nothing to do")
        results = [self._one(item) for item in items]
        if self.fault == "reorders":
            results.reverse()
        return results[:-1] if self.fault == "loses-one" and len(items) > 1 else results

    def _one(self, item):
        if not item.prompt.text:
            return InvalidArgument("an empty prompt", param="prompt")
        text = item.prompt.text.upper()
        if self.fault == "remembers":
            with self.lock:
                self.seen += 1
            text += str(self.seen)
        prompt = t.TokensPrompt(token_ids=(1,)) if self.fault == "wrong-kind" else t.TextPrompt(text=text)
        return item.with_(prompt=prompt)


class Dash:
    """A stream stage: makes one of two dashes, however they are cut."""

    def __init__(self, fault):
        self.fault, self.shared = fault, [""]

    def open(self, request):
        return _Dashes(self.fault, self.shared if self.fault == "shares-a-buffer" else [""])


class _Dashes:
    def __init__(self, fault, held):
        self.fault, self.held, self.done = fault, held, False

    def feed(self, event):
        (choice,) = event.choices
        text = (self.held[0] + choice.text).replace("--", "\u2014")
        last = choice.finish_reason is not None
        self.held[0] = "-" if text.endswith("-") and not last and self.fault != "looks-at-pieces" else ""
        text = text[: len(text) - len(self.held[0])]
        usage = None if self.fault == "loses-usage" else event.usage
        if self.fault == "loses-usage" and event.usage is not None:
            usage = replace(event.usage, completion_tokens=0)
        return [t.GenerateEvent(choices=(replace(choice, text=text),), usage=usage)]

    def finish(self):
        return []


SHARED = {}


class Fewest:
    """A router: the fewest in flight first."""

    def __init__(self, fault):
        self.fault = fault
        self.seen = SHARED if fault == "shares" else {}

    def rank(self, request, candidates):
        usable = [c for c in candidates if c.weight > 0 or self.fault == "sends-to-weight-0"]
        usable.sort(key=lambda c: c.id if self.fault == "sticks" else (c.in_flight, c.id))
        if self.fault == "forgets-one" and len(usable) > 1:
            usable.pop()
        reason = "" if self.fault == "gives-no-reason" else "in flight"
        return t.Ranking(groups=tuple(t.RankedGroup(candidates=(c,), reason=reason) for c in usable))

    def routed(self, request, candidate):
        key = request.prompt.text if self.fault == "keeps-all" else candidate.id
        self.seen[key] = self.seen.get(key, 0) + 1

    def completed(self, request, candidate, *, ok):
        pass

    def replicas_changed(self, candidates):
        pass


class Tag:
    """Hooks: every request gets a session."""

    def __init__(self, fault):
        self.fault = fault
        if fault == "stray":
            self.__class__ = _Stray

    def before_request(self, request):
        if self.fault == "foreign-exception":
            getattr(request.prompt, "messages", [None])[0]
        if self.fault == "new-identity":
            return request.with_(request_id=t.new_request_id())
        return None if request.session else request.with_(session="s")

    def after_response(self, summary):
        if self.fault == "observer-fails":
            raise KeyError("usage")


class _Stray(Tag):
    def on_response(self, summary):
        pass


def _each(cls, faults, make):
    prefix = cls.__name__.lower()
    for fault in faults:
        globals()[f"{prefix}_{fault.replace('-', '_')}"] = lambda *_, fault=fault: cls(fault)
    return [make(f"{prefix}-{fault}", f"broken_parts:{prefix}_{fault.replace('-', '_')}") for fault in faults]


def _request_stage(name, factory):
    return t.StagePlugin(name=name, factory=factory, automatic=False, **_COMMON)


def _stream_stage(name, factory):
    return t.StagePlugin(name=name, factory=factory, shape="stream", automatic=False, **_COMMON)


_PARTS = [
    *_each(Upper, STAGES, _request_stage),
    *_each(Dash, STREAMS, _stream_stage),
    *_each(Fewest, ROUTERS, lambda name, factory: t.RouterPlugin(name=name, factory=factory, **_COMMON)),
    *_each(Tag, HOOKS, lambda name, factory: t.HooksPlugin(name=name, factory=factory, **_COMMON)),
]


@t.hookimpl
def trunnion_stages():
    return [part for part in _PARTS if isinstance(part, t.StagePlugin)]


@t.hookimpl
def trunnion_routers():
    return [part for part in _PARTS if isinstance(part, t.RouterPlugin)]


@t.hookimpl
def trunnion_hooks():
    return [part for part in _PARTS if isinstance(part, t.HooksPlugin)]


EXPECTED = {
    f"{prefix}-{fault}": tests
    for prefix, faults in (("upper", STAGES), ("dash", STREAMS), ("fewest", ROUTERS), ("tag", HOOKS))
    for fault, tests in faults.items()
}
"""The tests that each must fail, and no other."""
