"""Find out how many requests in flight an endpoint profits from.

Throughput is measured over windows at one limit each, by Little's law: the mean number of attempts in flight over their
mean latency, which is exact however bursts fall into the window. A window counts once the attempts that were sent
before it have been replaced. The search keeps the best limit known between one below and one above it that did less:

- without one above it climbs: twice as many each time, as long as that brings more;
- then it tries the middle of the wider gap, until both are within a tenth;
- then it stays, and looks a quarter above and below ever more rarely, for endpoints change.

A limit at which more than a tenth of the attempts are refused (429) or lost (503, timeouts, broken connections) is
given up at once; where it was the best known, the search goes on below it. An outage, see :mod:`.outage`, teaches
nothing, nor do windows in which places stayed empty: the callers, not the endpoint, were what was slow.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

from .outage import Outage

Verdict = Literal["ok", "refused", "lost", "void"]
"""How an attempt ended: answered; refused by an endpoint that cannot keep up; lost, for that reason or because there is
none at present; or in a way that says nothing of that."""


class Began(NamedTuple):
    """Hold when an attempt was sent: the window, and the moment."""

    window: int
    moment: float


START: Final = 16
"""Requests in flight at first."""
_THRIFT: Final = 0.03
"""What more requests in flight must bring: twice as many, 2 % more throughput."""
_GAP: Final = 1.1
_REFUSED: Final = 0.1
_CUT: Final = 0.75
_FALLEN: Final = 0.7
"""Share of the best throughput below which the endpoint is taken to have changed."""
_BUSY: Final = 0.8
"""Share of a window's answers that must have come while every place was taken."""
_LOOK: Final = 1.25
_PATIENCE: Final = (2, 64)
"""Windows that it stays before it looks again: at first, and at most."""
_STEADY: Final = 64
"""Answers in a window at least, once the limit does not climb any more."""
_FEW: Final = 16
_NEW: Final = 0.3
"""Weight of a new window at a limit that is known."""
_ALONE: Final = 0.95
"""Share of the best throughput per request in flight at which the endpoint is not crowded: fewer would do less."""
_FORGET: Final = 0.99
_SLOW: Final = 1 / 16
"""Seconds per request in flight after which an endpoint that neither answers nor refuses gets more at the start."""
_SEARCH: Final = ("_best", "_score", "_error", "_low", "_high", "_step", "_stayed", "_patience", "_rate", "_lowest")
"""What an outage leaves as it was."""


class Adaptive:
    """Keep ``limit`` where the endpoint does the most. Pure but for the clock."""

    def __init__(self, ceiling: int, *, start: int = START, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin at ``start`` requests; there are never more than ``ceiling``."""
        self.limit = min(start, ceiling)
        self._ceiling = ceiling
        self._clock = clock
        self._best = self.limit
        self._score: float | None = None
        self._low: int | None = None
        self._high: int | None = None
        self._step = 2.0
        self._stayed = 0
        self._patience = _PATIENCE[0]
        self._reduced = 0
        self._error = 0.0
        self._rate = 0.0
        self._lowest = self.limit
        self._in_flight = 0
        self._window = 0
        self._since = self._start = self._moved = clock()
        self._fresh = self._refused = self._full = self._peak = 0
        self._latency = self._squares = self._area = 0.0
        self._outage = Outage(self._since)

    def began(self) -> Began:
        """Take note that an attempt is sent; returns what :meth:`ended` wants to know of it."""
        return Began(self._window, self._move(1))

    def ended(self, began: Began, verdict: Verdict, *, full: bool) -> None:
        """Take note of how an attempt ended; ``full``: every place was taken."""
        now = self._move(-1)
        if verdict == "ok" and self._comes_back(began, now):
            return
        if verdict == "void" or began.window != self._window:
            return
        if verdict != "ok":
            self._refused += 1
            if self._refused > max(2, _REFUSED * self._peak):
                self._too_much(now, lost=verdict == "lost")
            return
        self._fresh += 1
        before, wanted = self._sizes()
        if self._fresh <= before:
            if self._fresh == before:  # those from before the window are gone: it is measured from here on
                self._area, self._start = 0.0, now
            return
        seconds = now - began.moment
        self._full += full
        self._latency += seconds
        self._squares += seconds**2
        count = self._fresh - before
        if count >= wanted:
            if self._full >= _BUSY * count and self._latency > 0 and now > self._start:
                in_flight = self._area / (now - self._start)
                answered = count / (count + self._refused)
                mean = self._latency / count
                spread = max(0.0, self._squares / count / mean**2 - 1)
                self._outage.none()
                self._measured(in_flight / mean * answered**2, math.sqrt(spread / count))
            self._began_window()

    def reduced_since(self, began: Began) -> bool:
        """Tell whether the limit was lowered after that because of what the endpoint refused."""
        return self._reduced > began.window

    def impatience(self) -> float | None:
        """Return the seconds until more are sent to an endpoint that has not answered at all; None for never."""
        if self._score is not None or self._high is not None or self._fresh or self.limit == self._ceiling:
            return None
        return max(0.0, self._since + _SLOW * self.limit - self._clock())

    def hurry(self) -> None:
        """Take twice as many in flight."""
        if self.impatience() is not None:
            self._best = self.limit = min(2 * self.limit, self._ceiling)
            self._began_window()

    def _move(self, change: int) -> float:
        now = self._clock()
        self._area += self._in_flight * (now - self._moved)
        self._moved = now
        self._in_flight += change
        self._peak = max(self._peak, self._in_flight)
        return now

    def _began_window(self) -> None:
        self._window += 1
        self._since = self._start = self._moved = self._clock()
        self._fresh = self._refused = self._full = 0
        self._latency = self._squares = self._area = 0.0
        self._peak = self._in_flight

    def _sizes(self) -> tuple[int, int]:
        """Return the answers before a window counts, and in it; few while it climbs, where differences are large."""
        limit = self.limit
        if self._high is None:
            few = max(limit // 2, min(limit, _FEW))
            return few, few
        return limit, max(limit, min(_STEADY, 8 * limit))

    def _measured(self, score: float, error: float) -> None:
        """Learn the throughput at the limit, in attempts per second with its relative error; choose the next limit."""
        limit, best = self.limit, self._best
        self._rate = max(_FORGET * self._rate, score / limit)
        self._lowest = min(self._lowest, limit)
        if self._score is None:
            self._best, self._score, self._error = limit, score, error
        elif limit == best:
            if score < _FALLEN * self._score:  # another endpoint than it was: more would not help it
                self._look_around()
                self._high = max(best + 1, round(best * _LOOK))
                self._score, self._error = score, error
                self._lowest, self._rate = best, 0.0
            self._score += _NEW * (score - self._score)
            self._error = math.hypot((1 - _NEW) * self._error, _NEW * error)
        elif math.log(score / self._score) > _THRIFT * math.log(limit / best) + math.hypot(error, self._error):
            if limit > best:
                self._low = best
            else:
                self._high = best
            self._best, self._score, self._error = limit, score, error
            self._step = min(2.0, self._step**1.5)
            self._patience = _PATIENCE[0]
        elif limit > best:
            self._high = limit
        else:
            self._low = limit
        self.limit = self._next()

    def _next(self) -> int:
        best = self._best
        if self._high is None:
            if best < self._ceiling:
                return min(max(best + 1, round(best * self._step)), self._ceiling)
            self._high = self._ceiling + 1
        crowded = self._score is not None and (best == self._lowest or self._score / best < _ALONE * self._rate)
        if crowded and self._low is None and best > 1:
            return max(1, min(best - 1, round(best / self._step)))
        above = self._high / best if self._high - best > 1 else 1.0
        below = best / self._low if crowded and self._low and best - self._low > 1 else 1.0
        if max(above, below) > _GAP:
            return round(math.sqrt(best * (self._high if above >= below else best / below)))
        self._stayed += 1
        if self._stayed >= self._patience:
            self._patience = min(2 * self._patience, _PATIENCE[1])
            self._look_around()
        return best

    def _look_around(self) -> None:
        self._low = self._high = None
        self._step = _LOOK
        self._stayed = 0

    def _comes_back(self, began: Began, now: float) -> bool:
        """Take note of an answer; tell whether it only shows how far an endpoint that was out is back."""
        limit = self._outage.answered(began.window, now - began.moment, now, self.limit)
        if limit is not None:
            self.limit = limit
            self._began_window()
        elif self._outage.back and began.window == self._window:
            search = self._outage.round_over()
            if search is not None:
                for name, value in search.items():
                    setattr(self, name, value)
                self.limit = self._best
                self._outage.restored(now)
                self._began_window()
        return self._outage.back or limit is not None

    def _too_much(self, now: float, *, lost: bool) -> None:
        """Send less; ``lost``: it may be an outage, in which this happens once, and is forgotten afterwards."""
        if not lost:
            self._outage.none()
            self._give_up()
        elif self._outage.may_reduce(now):
            search, best = {name: getattr(self, name) for name in _SEARCH}, self._best
            self._give_up()
            self._outage.reduced(now, search, best, self._window)
        else:
            self._began_window()

    def _give_up(self) -> None:
        """Go back to the best limit; below it, where that is what was refused."""
        refused = min(self.limit, self._peak)
        if self.limit > self._best:
            self._high = self.limit
            self.limit = self._next()
        else:
            self._best = max(1, int(_CUT * refused))
            self._score, self._low = None, None
            self._high = max(refused, self._best + 1)
            self._patience = _PATIENCE[0]
            self._stayed = 0
            self.limit = self._best
        if self.limit < refused:
            self._reduced = self._window + 1
        self._began_window()
