"""Embed prompts with an encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from trunnion.engine import Embedding, Score
from trunnion.errors import InvalidArgument
from trunnion.events import Usage

from .config import TransformersConfig
from .encoder import Encoder, Tokens
from .loading import Loaded
from .pooling import read_pooling


class Embedder(Encoder):
    """Hold a model that embeds."""

    kind: Literal["embed"] = "embed"
    does = "embeds"

    def __init__(self, loaded: Loaded, config: TransformersConfig) -> None:
        """Take the model. Raises :class:`ConfigError` for adapters, and for a pooling that there is not."""
        super().__init__(loaded, config)
        self.pooling = read_pooling(loaded.path, config)
        self.context = min(loaded.context, self.pooling.max_tokens or loaded.context)
        text = self._model.config.get_text_config()
        self.width = int(text.hidden_size)
        self._widths = tuple(getattr(text, "matryoshka_dimensions", None) or ())

    def check_dimensions(self, dimensions: int | None) -> None:
        """Refuse a length that the vectors cannot be cut to. Raises :class:`InvalidArgument`."""
        if dimensions is None:
            return
        if self._widths and dimensions not in self._widths:
            names = ", ".join(map(str, self._widths))
            raise InvalidArgument(f"dimensions must be one of {names}, not {dimensions}", param="dimensions")
        if not 1 <= dimensions <= self.width:
            message = f"dimensions must be between 1 and the model's {self.width}, not {dimensions}"
            raise InvalidArgument(message, param="dimensions")

    async def embed(self, inputs: Sequence[Tokens], dimensions: int | None) -> list[Embedding]:
        """Return a vector per prompt, in order."""

        def finish(output: Any, mask: Any) -> Any:
            vectors = pool(output.last_hidden_state.float(), mask, self.pooling.mode)[:, :dimensions]
            if not self.pooling.normalize:
                return vectors
            import torch

            return torch.nn.functional.normalize(vectors, dim=-1)

        vectors = await self.encode(inputs, finish, dimensions)
        return [
            Embedding(vector=vector, usage=Usage(prompt_tokens=len(one.ids), completion_tokens=0))
            for one, vector in zip(inputs, vectors, strict=True)
        ]

    async def score(self, query: Tokens, texts: Sequence[Tokens]) -> list[Score]:
        """Return the cosine of the query's and each text's embedding; the first bears the cost of the query."""
        if not texts:
            return []
        asked, *found = await self.embed([query, *texts], None)
        return [
            Score(
                value=cosine(asked.vector, one.vector),
                usage=Usage(
                    prompt_tokens=one.usage.prompt_tokens + (0 if place else len(query.ids)), completion_tokens=0
                ),
            )
            for place, one in enumerate(found)
        ]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two vectors of any length; 0 where one has none."""
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def pool(hidden: Any, mask: Any, mode: str) -> Any:
    """Return one vector per row of ``hidden`` (rows, tokens, width); padding, on the right, is masked with 0."""
    if mode == "cls":
        return hidden[:, 0]
    if mode == "last":
        last = mask.sum(1) - 1
        return hidden[range(len(hidden)), last]
    weights = mask[:, :, None]
    if mode == "max":
        return hidden.masked_fill(weights == 0, float("-inf")).amax(1)
    return (hidden * weights).sum(1) / weights.sum(1)
