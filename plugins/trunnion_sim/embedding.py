"""Make embeddings: unit vectors that lie near each other for texts that share words; scores and labels by them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from trunnion.errors import InvalidArgument

from .tokens import draw

_SHARPNESS: Final = 10


@lru_cache(maxsize=4096)
def _direction(seed: str, size: int) -> tuple[int, ...]:
    return tuple(2 * byte - 255 for byte in draw(seed, size))


def embed(tokens: Sequence[int], *, size: int, dimensions: int | None, seed: str) -> list[float]:
    """Return the unit vector of a prompt: the sum of one direction per token, of which the first part may be taken.

    Raises:
        InvalidArgument: More dimensions are asked for than there are.
    """
    wanted = size if dimensions is None else dimensions
    if not 1 <= wanted <= size:
        message = f"dimensions must be between 1 and {size}, not {wanted}"
        raise InvalidArgument(message, param="dimensions")
    whole = [0] * wanted
    for token in tokens:
        for at, value in enumerate(_direction(f"{seed}/embed/{token}", size)[:wanted]):
            whole[at] += value
    length = math.sqrt(sum(value * value for value in whole))
    if not length:
        return [1.0, *([0.0] * (wanted - 1))]
    return [value / length for value in whole]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two unit vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def classify(vector: Sequence[float], labels: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the probability of each label: the softmax of ten times its cosine with the prompt.

    A prompt that has a label's word leans towards it; one that has none is drawn by the seed of the vectors.
    """
    weights = {label: math.exp(_SHARPNESS * cosine(vector, place)) for label, place in labels.items()}
    whole = sum(weights.values())
    return {label: weight / whole for label, weight in weights.items()}
