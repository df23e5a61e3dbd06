"""The number of requests in flight finds its place by itself: endpoints in virtual time, the gate on a real loop."""

import asyncio
import heapq
import itertools
import random

import pytest
from endpoint_servers import WHOLE, answer, ask, http, scripted

from trunnion import collect
from trunnion.errors import Transient
from trunnion_openai.adaptive import START, Adaptive
from trunnion_openai.gate import Fixed, Gate, Place

SECONDS = 0.1


class Endpoint:
    """Answer callers who always have another request, in virtual time.

    It does ``knee`` requests at once. Beyond, it lets them wait ("queue"), does all of them slower ("slow"), or refuses
    them ("refuse"), or drops them ("drop"); "smooth" has no knee: each one more makes all a little slower. While it is
    ``down``, connections are refused, and those that were there broke.
    """

    def __init__(self, knee, beyond, *, lengths=None):
        self.knee, self.beyond = knee, beyond
        self.now = 0.0
        self.served = self.refused = self.busy = self.in_flight = self.asleep = 0
        self._lengths = lengths
        self.down = False
        self._queue, self._events, self._order = [], [], itertools.count()

    def _seconds(self):
        slower = {"slow": max(1, self.busy / self.knee) ** 2, "smooth": 1 + self.busy / self.knee}
        return SECONDS * slower.get(self.beyond, 1.0) * (1 if self._lengths is None else self._lengths())

    def _after(self, seconds, what, began):
        heapq.heappush(self._events, (self.now + seconds, next(self._order), what, began))

    def _send(self, control):
        began = control.began()
        self.in_flight += 1
        if self.down or (self.beyond in ("refuse", "drop") and self.busy >= self.knee):
            self._after(0.002, "lost" if self.down or self.beyond == "drop" else "refused", began)
            return
        self.busy += 1
        if self.beyond == "queue" and self.busy > self.knee:
            self._queue.append(began)
        else:
            self._after(self._seconds(), "ok", began)

    def go_down(self):
        """Break what is there."""
        self.down = True
        broken = [began for _, _, what, began in self._events if what == "ok"] + self._queue
        self._events = [event for event in self._events if event[2] != "ok"]
        heapq.heapify(self._events)
        self._queue, self.busy = [], 0
        for began in broken:
            self._after(0.0, "lost", began)

    def run(self, control, seconds):
        """Serve for so long; returns the requests answered per second."""
        served, ends = self.served, self.now + seconds
        while self.now < ends:
            while self.in_flight + self.asleep < control.limit:
                self._send(control)
            self.now, _, what, began = heapq.heappop(self._events)
            if what == "awake":
                self.asleep -= 1
                continue
            full = self.in_flight + self.asleep >= control.limit
            self.in_flight -= 1
            if what == "ok":
                self.busy -= 1
                self.served += 1
                if self._queue:
                    self._after(self._seconds(), "ok", self._queue.pop(0))
            else:
                self.refused += 1
                self.asleep += 1
                self._after(0.05, "awake", None)
            control.ended(began, what, full=full)
        return (self.served - served) / seconds


def settled(endpoint, *, ceiling=512, learn=60.0, seconds=60.0):
    """Return an adaptive control that has had time to learn, and what the endpoint does under it after that."""
    control = Adaptive(ceiling, clock=lambda: endpoint.now)
    endpoint.run(control, learn)
    return control, endpoint.run(control, seconds)


def best(knee, beyond):
    """Return the throughput at the best of all fixed limits."""
    limits = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40, 64, 96, 128, 200, 256, 384, 512, knee]
    return max(Endpoint(knee, beyond).run(Fixed(limit), 20.0) for limit in limits)


@pytest.mark.parametrize("beyond", ["queue", "slow", "refuse", "drop", "smooth"])
@pytest.mark.parametrize("knee", [2, 7, 24, 40, 80])
def test_it_does_as_well_as_the_best_fixed_number(knee, beyond):
    learn = 60.0 if knee > 2 else 240.0  # at 16 in flight such an endpoint does but two requests a second
    _, rate = settled(Endpoint(knee, beyond), learn=learn)
    assert rate >= 0.95 * best(knee, beyond)


def test_it_stays_near_a_knee_that_requests_wait_behind():
    control, _ = settled(Endpoint(24, "queue"))
    assert 24 <= control.limit <= 64  # four times fewer than there could be


@pytest.mark.parametrize("knee", [24, 100])
def test_it_finds_it_where_answers_differ_in_length(knee):
    source = random.Random(5)
    endpoint = Endpoint(knee, "slow", lengths=lambda: source.expovariate(1.0))
    _, rate = settled(endpoint, learn=120.0, seconds=240.0)
    assert rate >= 0.8 * knee / SECONDS


def test_few_are_refused_in_the_long_run():
    endpoint = Endpoint(40, "refuse")
    settled(endpoint, learn=60.0)
    before, served = endpoint.refused, endpoint.served
    control = Adaptive(512, clock=lambda: endpoint.now)
    endpoint.run(control, 300.0)
    assert endpoint.refused - before <= 0.02 * (endpoint.served - served)


def test_an_endpoint_that_grows_is_given_more_and_one_that_shrinks_less():
    endpoint = Endpoint(16, "queue")
    control, rate = settled(endpoint)
    endpoint.knee = 64
    endpoint.run(control, 120.0)
    assert endpoint.run(control, 30.0) >= 0.9 * 64 / SECONDS > 2 * rate
    endpoint.beyond, endpoint.knee = "slow", 32
    endpoint.run(control, 200.0)
    assert endpoint.run(control, 60.0) >= 0.9 * 32 / SECONDS


def test_it_comes_back_from_an_outage():
    endpoint = Endpoint(64, "refuse")
    control, _ = settled(endpoint)
    endpoint.knee = 0
    endpoint.run(control, 10.0)
    assert control.limit == 1
    endpoint.knee = 64
    endpoint.run(control, 60.0)
    assert endpoint.run(control, 30.0) >= 0.9 * 64 / SECONDS


@pytest.mark.parametrize("seconds", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("beyond", ["queue", "slow", "drop"])
def test_what_an_outage_breaks_is_forgotten_once_it_is_over(beyond, seconds):
    endpoint = Endpoint(64, beyond)
    control, _ = settled(endpoint, learn=30.0, seconds=1.0)
    before = control.limit
    endpoint.go_down()
    endpoint.run(control, seconds)
    endpoint.down = False
    rate = endpoint.run(control, 1.0)  # ten times what an answer takes
    assert control.limit >= before / 2
    assert rate >= 0.4 * 64 / SECONDS
    assert endpoint.run(control, 10.0) >= 0.9 * 64 / SECONDS


def test_an_outage_while_it_still_climbs_does_not_end_the_climb():
    source = random.Random(5)
    endpoint = Endpoint(300, "queue", lengths=lambda: source.uniform(0.5, 1.5))
    control = Adaptive(512, clock=lambda: endpoint.now)
    while control.limit < 64:
        endpoint.run(control, 0.05)
    endpoint.go_down()
    endpoint.run(control, 3.0)
    endpoint.down = False
    endpoint.run(control, 3.0)
    assert control.limit >= 256


def test_an_endpoint_that_stops_gently_gets_as_much_when_it_is_back():
    """What it has is answered, while nothing new is taken."""
    source = random.Random(5)
    endpoint = Endpoint(64, "queue", lengths=lambda: source.uniform(0.2, 1.8))
    control, _ = settled(endpoint, learn=30.0, seconds=1.0)
    before = control.limit
    endpoint.down = True
    endpoint.run(control, 3.0)
    endpoint.down = False
    endpoint.run(control, 1.0)
    assert control.limit >= before / 2


def test_losses_alone_send_less_once_and_then_ever_less_if_it_lasts():
    endpoint = Endpoint(64, "queue")
    control, _ = settled(endpoint, learn=30.0, seconds=1.0)
    before = control.limit
    endpoint.go_down()
    endpoint.run(control, 3.0)
    assert before / 2 < control.limit < before
    endpoint.run(control, 100.0)  # an endpoint that hangs of too much needs that as well
    assert control.limit < before / 8


def test_it_starts_small_and_never_exceeds_the_ceiling():
    assert Adaptive(512).limit == START
    assert Adaptive(4).limit == 4
    seen = []
    endpoint = Endpoint(1000, "queue")
    control = Adaptive(50, clock=lambda: endpoint.now)
    for _ in range(300):
        endpoint.run(control, 0.1)
        seen.append(control.limit)
    assert max(seen) == 50
    assert endpoint.run(control, 60.0) >= 0.95 * 50 / SECONDS


def test_callers_who_ask_for_little_teach_nothing():
    control = Adaptive(512, clock=itertools.count().__next__)
    for _ in range(1000):
        control.ended(control.began(), "ok", full=False)
    assert control.limit == START


def test_single_failures_are_no_reason_to_slow_down():
    endpoint = Endpoint(100, "queue")
    control = Adaptive(100, clock=lambda: endpoint.now)
    for _ in range(200):
        endpoint.run(control, 0.3)
        control.ended(control.began(), "refused", full=True)  # one of some 300
    assert endpoint.run(control, 60.0) >= 0.9 * 100 / SECONDS


def test_an_endpoint_that_is_slow_to_answer_is_given_more_before_it_does():
    now = 0.0
    control = Adaptive(100, clock=lambda: now)
    limits = []
    for _ in range(5):
        limits.append(control.limit)
        wait = control.impatience()
        if wait is None:
            break
        assert wait > 0
        now += wait
        control.hurry()
    assert limits == [16, 32, 64, 100]
    control = Adaptive(100, clock=lambda: now)
    control.ended(control.began(), "ok", full=True)
    assert control.impatience() is None  # it does answer: its throughput tells the rest


async def test_the_gate_admits_in_turn_and_repetitions_first():
    gate = Gate(Fixed(1))
    order = []

    async def one(name, *, again=False):
        place = Place(gate)
        await (place.take_again() if again else place.take())
        order.append(name)
        await asyncio.sleep(0)
        place.leave()

    holder = Place(gate)
    await holder.take()
    tasks = [asyncio.ensure_future(one(name)) for name in "abc"]
    await asyncio.sleep(0)
    tasks.append(asyncio.ensure_future(one("again", again=True)))
    await asyncio.sleep(0)
    tasks[1].cancel()
    holder.leave()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert order == ["again", "a", "c"]
    assert gate.running == 0


async def test_a_place_given_to_one_that_was_cancelled_goes_on():
    gate = Gate(Fixed(1))
    first, second, third = Place(gate), Place(gate), Place(gate)
    await first.take()
    waits = asyncio.ensure_future(second.take())
    await asyncio.sleep(0)
    first.leave()  # the place is the second's, who is cancelled before it notices
    waits.cancel()
    await asyncio.gather(waits, return_exceptions=True)
    async with asyncio.timeout(10):
        await third.take()
    assert gate.running == 1


async def test_more_places_admit_more_at_once():
    control = Fixed(1)
    gate = Gate(control)
    places = [Place(gate) for _ in range(5)]
    tasks = [asyncio.ensure_future(place.take()) for place in places]
    await asyncio.sleep(0)
    assert gate.running == 1
    control.limit = 4
    gate.admit()
    await asyncio.sleep(0)
    assert gate.running == 4
    control.limit = 2
    places[0].leave()
    places[1].leave()
    assert gate.running == 2
    places[2].leave()
    await tasks[4]
    assert gate.running == 2


@pytest.mark.parametrize(("concurrency", "at_once"), [("adaptive", START), ("fixed", 40)])
async def test_the_setting_chooses(concurrency, at_once):
    async with scripted(answer(200, WHOLE), concurrency=concurrency, max_concurrency=40) as (server, engine):
        tasks = [asyncio.ensure_future(collect(engine.generate(ask(final=True)))) for _ in range(60)]
        await asyncio.sleep(0)
        load = engine.load()
        assert (load.running, load.waiting, load.capacity) == (at_once, 60 - at_once, at_once)
        assert engine.info.concurrency == 40
        await asyncio.gather(*tasks)
        assert server.peak <= 40


async def test_refusals_that_taught_the_engine_are_not_held_against_requests():
    """More are sent than the endpoint takes: all are answered, although there is no budget for repetitions."""

    async def script(asked, writer):
        if server.running > 4:
            writer.write(http(429, b"{}"))
            await writer.drain()
            return
        await asyncio.sleep(0.01)
        await answer(200, WHOLE)(asked, writer)

    async with scripted(script, max_retries=5, retry_budget=0.0, retry_backoff=0.01) as (server, engine):
        outcomes = await asyncio.gather(
            *(collect(engine.generate(ask(final=True))) for _ in range(200)), return_exceptions=True
        )
        assert [one.text for one in outcomes] == ["Hello"] * 200
        assert engine.load().capacity < START


async def test_connections_that_break_are_an_outage_and_no_refusals():
    async def script(asked, writer):
        writer.close()

    async with scripted(script) as (_, engine):
        outcomes = await asyncio.gather(
            *(collect(engine.generate(ask(final=True))) for _ in range(100)), return_exceptions=True
        )
        assert {type(one) for one in outcomes} == {Transient}
        assert START / 2 < engine.load().capacity < START  # one step for all of them
