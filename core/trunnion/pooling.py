"""Ask for what a model makes of a prompt besides text: a vector, probabilities of labels, or scores of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from .capabilities import Capabilities
from .errors import UnsupportedFeature
from .events import Usage
from .requests import Prompt

PoolingTask = Literal["embed", "classify", "score"]
Task = Literal["generate", "embed", "classify", "score"]
"""What is asked of a model, by the field's usual names."""
TASKS: Final[tuple[Task, ...]] = ("generate", "embed", "classify", "score")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingRequest:
    """Ask about one prompt.

    Attributes:
        task: What is asked.
        prompt: What is embedded or classified; of a score, the query, as text.
        texts: Of a score: the texts that are held against the query.
        dimensions: Of an embedding: its length, where the model can cut it.
        adapter: Of an embedding: the LoRA adapter.
    """

    task: PoolingTask
    prompt: Prompt
    texts: tuple[str, ...] = ()
    dimensions: int | None = None
    adapter: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingAnswer:
    """Hold the answer to a :class:`PoolingRequest`.

    Attributes:
        task: What was asked.
        usage: What it cost.
        vector: Of an embedding.
        scores: One per text, in order; higher is better.
        probabilities: Of each label, in the model's order.
    """

    task: PoolingTask
    usage: Usage
    vector: Sequence[float] = ()
    scores: Sequence[float] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)


PROTOCOL_OF: Final[Mapping[Task, str]] = {"embed": "embeds/1", "classify": "classifies/1", "score": "scores/1"}
"""The optional protocol that a task needs; generating needs none."""


def needs_of(task: Task) -> tuple[str, ...]:
    """Return the protocols that an engine must have for a task, for ``choose_engine(needs=...)``."""
    return (PROTOCOL_OF[task],) if task in PROTOCOL_OF else ()


def check_task(task: Task, engine: str, capabilities: Capabilities) -> None:
    """Refuse a task that an engine's plugin does not declare, before the engine is started.

    Raises:
        UnsupportedFeature: ``param`` is ``task``.
    """
    for protocol in needs_of(task):
        if protocol not in capabilities.protocols:
            message = f"engine {engine!r} cannot {task}; choose one that can (`trunnion engines --markdown`)"
            raise UnsupportedFeature(message, param="task", details={"engine": engine, "feature": protocol})
