"""Count and time requests, and write the figures in Prometheus' text format.

One process's figures: a replica tells its own, and a gateway passes on those of the replicas behind it. Everything runs
on the app's loop, so that nothing is locked, and a streamed event costs a few hundred nanoseconds.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import trunnion
from trunnion.events import GenerateEvent
from trunnion.timing import MARKS, Marks

from .errors import unknown_path
from .gathered import gather

if TYPE_CHECKING:
    from .app import App
    from .call import Call

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
)  # fmt: skip
_OWN: Final = (0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0)
_ELSEWHERE: Final = "other"


class Histogram:
    """Count observations by size."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Take one value, or the same several times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def buckets(self) -> list[tuple[str, float]]:
        """Return how many were at most each bound, the last without one."""
        made, count = [], 0
        for bound, more in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            count += more
            made.append((bound, float(count)))
        return made


class ModelFigures:
    """Hold the figures of one served model."""

    def __init__(self) -> None:
        self.prompt_tokens = self.cached_tokens = self.completion_tokens = 0
        self.clients_gone = 0
        self.first_token = Histogram(_SECONDS)
        self.between_tokens = Histogram(_SECONDS)
        self.queued = Histogram(_SECONDS)
        self.own_before = Histogram(_OWN)
        self.own_events = 0
        self.own_event_seconds = 0.0


class Meter:
    """Time the events of one stream, and count what was sent of it.

    Attributes:
        prompt: Tokens of the prompt, where the engine told them before its end; else 0.
        tokens: Tokens sent so far.
    """

    __slots__ = ("_began", "_events", "_figures", "_last", "_own", "prompt", "tokens")

    def __init__(self, figures: ModelFigures, began: float) -> None:
        self._figures = figures
        self._began = began
        self._last = 0.0
        self._events = 0
        self._own = 0.0
        self.prompt = self.tokens = 0

    def sent(self, came: float, event: GenerateEvent) -> None:
        """Take note that an event which came then is on its way to the client."""
        choices = event.choices
        if choices:
            last = self._last
            ids = choices[0].token_ids
            tokens = len(ids) if ids else 1
            if last:
                self._figures.between_tokens.observe((came - last) / tokens, tokens)
            else:
                self._figures.first_token.observe(came - self._began)
                self.prompt = event.prompt_tokens or 0
            self._last = came
            self.tokens += tokens if len(choices) == 1 else sum(len(choice.token_ids) or 1 for choice in choices)
        self._events += 1
        self._own += perf_counter() - came

    def close(self) -> None:
        """Add this stream's share to the others'."""
        self._figures.own_events += self._events
        self._figures.own_event_seconds += self._own


class Metrics:
    """Hold the figures of one app."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._models: dict[str, ModelFigures] = {}
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._seconds: dict[tuple[str, str], Histogram] = {}

    def model(self, name: str) -> ModelFigures:
        """Return the figures of a model that is served."""
        figures = self._models.get(name)
        if figures is None:
            figures = self._models[name] = ModelFigures()
        return figures

    def begin(self, call: Call) -> None:
        """Take a request in, in the task that runs it."""
        self.in_flight += 1
        call.marks = Marks()
        MARKS.set(call.marks)

    def end(self, call: Call, endpoint: str | None, *, gone: bool) -> None:
        """Count a request that is over; ``endpoint`` None where there is none of its path."""
        self.in_flight -= 1
        endpoint = endpoint or _ELSEWHERE
        self._requests[call.model, endpoint, 499 if gone else call.status] += 1
        if not call.model:
            return
        key = (call.model, endpoint)
        if key not in self._seconds:
            self._seconds[key] = Histogram(_SECONDS)
        self._seconds[key].observe(perf_counter() - call.began)
        figures = self.model(call.model)
        figures.clients_gone += gone
        marks = call.marks
        if marks is not None and marks.handed:
            figures.own_before.observe(marks.handed - call.began)
            if marks.queued is not None:
                figures.queued.observe(marks.queued)
        usage = call.usage
        if usage is not None:
            figures.prompt_tokens += usage.prompt_tokens
            figures.cached_tokens += usage.cached_tokens
            figures.completion_tokens += usage.completion_tokens

    def families(self, app: App) -> Iterator[Any]:
        """Yield what Prometheus is told."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
            InfoMetricFamily,
            SummaryMetricFamily,
        )

        told = {"version": trunnion.__version__, "instance": app.instance}
        yield InfoMetricFamily("trunnion", "The process that tells these figures.", value=told)
        requests = CounterMetricFamily(
            "trunnion_requests", "Requests by status; 499: the client left.", labels=["model", "endpoint", "status"]
        )
        for (model, endpoint, status), count in self._requests.items():
            requests.add_metric([model, endpoint, str(status)], count)
        yield requests
        yield GaugeMetricFamily("trunnion_requests_in_flight", "Requests being answered.", value=self.in_flight)
        tasks = len(asyncio.all_tasks())
        yield GaugeMetricFamily("trunnion_event_loop_tasks", "Tasks of this process's event loop.", value=tasks)
        for name, said in _COUNTERS.items():
            counter = CounterMetricFamily(f"trunnion_{name}", said, labels=["model"])
            for model, figures in self._models.items():
                counter.add_metric([model], getattr(figures, name))
            yield counter
        seconds = HistogramMetricFamily(
            "trunnion_request_seconds", "From a request's arrival to its last byte.", labels=["model", "endpoint"]
        )
        for labels, histogram in self._seconds.items():
            seconds.add_metric(list(labels), histogram.buckets(), histogram.total)
        yield seconds
        for name, (attribute, said) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(f"trunnion_{name}", said, labels=["model"])
            for model, figures in self._models.items():
                histogram = getattr(figures, attribute)
                family.add_metric([model], histogram.buckets(), histogram.total)
            yield family
        own = SummaryMetricFamily(
            "trunnion_own_event_seconds",
            "Our share of each streamed event: from the engine to the socket.",
            labels=["model"],
        )
        for model, figures in self._models.items():
            own.add_metric([model], figures.own_events, figures.own_event_seconds)
        yield own
        running = GaugeMetricFamily("trunnion_engine_running", "Requests that the engine works on.", labels=["model"])
        waiting = GaugeMetricFamily("trunnion_engine_waiting", "Requests that wait in the engine.", labels=["model"])
        for name, handle in app.models:
            load = getattr(handle, "load", None)
            report = load() if load is not None and handle.ready else None
            if report is not None:
                running.add_metric([name], report.running)
                waiting.add_metric([name], report.waiting)
        yield running
        yield waiting


_COUNTERS: Final = {
    "prompt_tokens": "Tokens of prompts that were answered.",
    "cached_tokens": "Of these, tokens that the engine's prefix cache held.",
    "completion_tokens": "Tokens generated.",
    "clients_gone": "Requests whose client left before the answer was whole.",
}
_HISTOGRAMS: Final = {
    "time_to_first_token_seconds": ("first_token", "From a streamed request's arrival to its first token."),
    "inter_token_seconds": ("between_tokens", "Between the tokens of a stream."),
    "queue_seconds": ("queued", "In the engine's queue, of requests whose engine tells."),
    "own_before_engine_seconds": ("own_before", "Our share of the time to the first token: arrival to the engine."),
}


TOLD_AHEAD: Final = frozenset({"trunnion_requests", "trunnion_request_seconds", "trunnion_requests_in_flight"})
"""Families that a process tells of requests which it relays: those behind it leave them out."""
TOLD_BEHIND: Final = frozenset({
    *(f"trunnion_{name}" for name in (*_COUNTERS, *_HISTOGRAMS)),
    "trunnion_own_event_seconds",
    "trunnion_engine_running",
    "trunnion_engine_waiting",
})  # fmt: skip
"""Families that only whoever has the engine can tell."""


async def metrics(app: App, call: Call) -> None:
    """Answer ``GET /metrics``: our figures, then what the engine's library tells under its own names."""
    if app.metrics is None:
        raise unknown_path("GET", "/metrics")
    own = exposition(app, without=() if app.behind is None else TOLD_BEHIND)
    if app.behind is not None:
        own = await asyncio.to_thread(gather, own, await app.behind())
    await call.answer(own.encode(), content_type=CONTENT_TYPE)


def exposition(app: App, *, without: Collection[str] = ()) -> str:
    """Return what this process tells Prometheus, without some of our own families."""
    from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

    if app.metrics is None:
        return ""
    own = CollectorRegistry(auto_describe=False)
    own.register(_Families([family for family in app.metrics.families(app) if family.name not in without]))
    return (generate_latest(own) + generate_latest(REGISTRY)).decode()


class _Families:
    def __init__(self, families: list[Any]) -> None:
        self._families = families

    def collect(self) -> list[Any]:
        return self._families
