"""Say how long each stage of a start took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_SHOWN = 0.05
"""Seconds below which a stage is left out of the one line for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupStage:
    """Name one stage of a start.

    Attributes:
        name: What was done: "fetch model", "load engine", or a word of the engine's own.
        seconds: How long it took.
        parts: What it is made of, where the engine says (``EngineInfo.startup``).
    """

    name: str
    seconds: float
    parts: tuple[StartupStage, ...] = ()

    def __str__(self) -> str:
        """Return ``name 1.2 s``, with the parts in brackets."""
        parts = ", ".join(str(part) for part in self.parts if part.seconds >= _SHOWN)
        return f"{self.name} {self.seconds:.1f} s" + (f" ({parts})" if parts else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """Hold the stages of a start in the order they ran; ``seconds`` is their sum."""

    stages: tuple[StartupStage, ...] = ()

    @property
    def seconds(self) -> float:
        """Return how long all of it took."""
        return sum(stage.seconds for stage in self.stages)

    def __str__(self) -> str:
        """Return one line for people; what took no time is left out."""
        shown = ", ".join(str(stage) for stage in self.stages if stage.seconds >= _SHOWN)
        return f"started in {self.seconds:.1f} s" + (f": {shown}" if shown else "")


class StartupClock:
    """Measure stages one after the other."""

    def __init__(self) -> None:
        self._stages: list[StartupStage] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure one stage; one that fails is not kept."""
        began = time.perf_counter()
        yield
        self._stages.append(StartupStage(name=name, seconds=time.perf_counter() - began))

    def startup(self, **parts: tuple[StartupStage, ...]) -> Startup:
        """Return what was measured; ``parts`` holds parts by the stage's name, spaces as underscores."""
        named = {name.replace("_", " "): value for name, value in parts.items()}
        return Startup(
            stages=tuple(
                StartupStage(name=one.name, seconds=one.seconds, parts=named.get(one.name, ())) for one in self._stages
            )
        )
