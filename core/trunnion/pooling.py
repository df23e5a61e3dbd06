"""Ask for what a model makes of a prompt besides text: a vector, probabilities of labels, or scores of texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

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
