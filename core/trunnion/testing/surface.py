"""Define surfaces: the places an engine is mounted in, where the kit asks it again.

Adapters contribute them by the entry-point group ``trunnion.surfaces``; the core knows none of them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from trunnion.requests import ChatMessage
from trunnion.spec import EngineSpec

SURFACE_GROUP: Final = "trunnion.surfaces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Hold what is asked on every surface: a conversation or plain text, and sampling parameters by name."""

    prompt: str | Sequence[ChatMessage]
    sampling: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hold what came back: the text, why it ended, and the tokens of prompt and completion."""

    text: str
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int


class Surface(Protocol):
    """Mount an engine somewhere and ask it."""

    def unavailable(self) -> str | None:
        """Return why this surface cannot be used here, such as a library that is missing; None if it can."""
        ...

    def ask(self, spec: EngineSpec, questions: Sequence[Question]) -> list[Answer]:
        """Start the engine there, ask side by side, stop it, and return the answers in order.

        Raises:
            TrunnionError: What the engine refused with.
        """
        ...


def surface_names() -> list[str]:
    """Return the names of the surfaces that installed adapters contribute."""
    return sorted({point.name for point in importlib.metadata.entry_points(group=SURFACE_GROUP)})


def load_surface(name: str) -> Surface:
    """Return a surface by its name."""
    (point, *_) = importlib.metadata.entry_points(group=SURFACE_GROUP, name=name)
    made: Any = point.load()
    surface: Surface = made()
    return surface
