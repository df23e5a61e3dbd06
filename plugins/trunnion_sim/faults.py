"""Strike requests, or the whole engine, on demand: by marker, rate, number or time. The same seed strikes the same."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Literal

from pydantic import Field

from trunnion import PluginConfig

Fault = Literal["refuse", "hang", "die", "crash", "exit", "slow", "malformed", "no_usage"]
NodeFault = Literal["slow_node", "crash_node"]
SLOWDOWN: Final = 10.0
BREAKS: Final = frozenset({"die", "crash", "exit", "hang"})
"""Faults that end or hold a stream after some of its tokens."""


class FaultRule(PluginConfig):
    """Say what goes wrong, and for whom. A request meets the first rule that fits it.

    ``refuse``: 429. ``hang``, ``die``, ``crash``: after some tokens the stream stands still, breaks, or takes the
    engine with it. ``exit``: the whole process ends, as by a fault in native code. ``slow``: the request takes longer.
    ``malformed``: its text is garbled, so that no format holds. ``no_usage``: the last event lacks usage. ``slow_node``
    and ``crash_node`` befall the engine as a whole.
    """

    kind: Fault | NodeFault = Field(description="What goes wrong.")
    marker: str = Field("", description="Only prompts that contain this text are struck; empty: all.")
    rate: float = Field(1.0, ge=0, le=1, description="Share of the requests concerned that is struck, drawn by seed.")
    requests: tuple[int, ...] = Field((), description="Numbers of the requests to strike, from 0; empty: all.")
    after: int = Field(
        1, ge=0, description="Tokens after which hang, die, crash or exit strikes, before the last event."
    )
    at: float = Field(0.0, ge=0, description="Seconds after the start from which the rule holds; crash_node: when.")
    until: float | None = Field(None, gt=0, description="Seconds after the start at which the rule ends; None: never.")
    factor: float = Field(SLOWDOWN, gt=0, description="How many times as long slow and slow_node take.")

    def holds(self, elapsed: float) -> bool:
        """Tell whether the rule holds so many seconds after the start."""
        return self.at <= elapsed and (self.until is None or elapsed < self.until)


class Faults:
    """Find the rule that a request meets, and what befalls the engine."""

    def __init__(self, rules: Sequence[FaultRule], seed: int) -> None:
        self._seed = seed
        self._rules = [(index, rule) for index, rule in enumerate(rules) if not rule.kind.endswith("_node")]
        self._slow = [rule for rule in rules if rule.kind == "slow_node"]
        self.crash_at = min((rule.at for rule in rules if rule.kind == "crash_node"), default=None)

    def __bool__(self) -> bool:
        """Tell whether any request can be struck."""
        return bool(self._rules)

    def strike(self, text: str, number: int, elapsed: float) -> FaultRule | None:
        """Return the rule that the request of this number and prompt meets; None if it is spared."""
        for index, rule in self._rules:
            chosen = rule.marker in text and (not rule.requests or number in rule.requests)
            if chosen and rule.holds(elapsed) and (rule.rate == 1 or self._drawn(index, number) < rule.rate):
                return rule
        return None

    def _drawn(self, rule: int, number: int) -> float:
        digest = hashlib.blake2b(f"{self._seed}/fault/{rule}/{number}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64

    def slowness(self, elapsed: float) -> float:
        """Return how many times as long everything takes just now."""
        slow = 1.0
        for rule in self._slow:
            if rule.holds(elapsed):
                slow *= rule.factor
        return slow
