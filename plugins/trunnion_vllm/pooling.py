"""Embed, classify and score single prompts with vLLM's pooling runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot
from typing import Any

from trunnion.engine import Classification, Embedding, Score
from trunnion.errors import ContextOverflow
from trunnion.events import Usage
from trunnion.requests import new_request_id

from . import _vllm
from .errors import MAPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """Say what a pooling model is for; ``labels`` are its own, by place."""

    embeds: bool = False
    labels: tuple[str, ...] = ()

    @property
    def classifies(self) -> bool:
        """Tell whether the model gives several labels their probabilities."""
        return len(self.labels) > 1

    @property
    def is_cross_encoder(self) -> bool:
        """Tell whether the model's one output is a score of a query and a text."""
        return len(self.labels) == 1

    @property
    def scores(self) -> bool:
        """Tell whether texts can be scored, by a cross-encoder or by the cosine of embeddings."""
        return self.embeds or self.is_cross_encoder


def abilities(tasks: Sequence[str], model_config: Any) -> Abilities:
    """Return what a model can be asked for, by vLLM's tasks and the model's own description of its labels."""
    labels: tuple[str, ...] = ()
    if "classify" in tasks:
        described = model_config.hf_config.get_text_config()
        names = getattr(model_config.hf_config, "id2label", None) or getattr(described, "id2label", None) or {}
        count = int(getattr(described, "num_labels", 0) or len(names))
        labels = tuple(str(names.get(place, f"LABEL_{place}")) for place in range(count))
    return Abilities(embeds="embed" in tasks, labels=labels)


async def embed_one(llm: Any, token_ids: list[int], dimensions: int | None, lora: Any, context: int) -> Embedding:
    """Return the embedding of token ids.

    Raises:
        ContextOverflow: The prompt exceeds the context.
        InvalidArgument: The model does not embed, or not in that many dimensions.
    """
    vector, usage = await _pooled(llm, token_ids, {"task": "embed", "dimensions": dimensions}, lora, context)
    return Embedding(vector=vector, usage=usage)


async def classify_one(llm: Any, token_ids: list[int], labels: Sequence[str], context: int) -> Classification:
    """Return the probabilities of the labels. Raises :class:`ContextOverflow`."""
    row, usage = await _pooled(llm, token_ids, {"task": "classify"}, None, context)
    return Classification(probabilities=dict(zip(labels, row, strict=True)), usage=usage)


async def score_one(llm: Any, token_ids: list[int], first: int | None, context: int) -> Score:
    """Return a cross-encoder's score of a query and a text joined.

    ``first``: where the second text begins, for models that tell the two apart. Raises :class:`ContextOverflow`.
    """
    params: dict[str, Any] = {"task": "classify"}
    if first is not None:
        params["extra_kwargs"] = {"compressed_token_type_ids": first}
    row, usage = await _pooled(llm, token_ids, params, None, context)
    return Score(value=row[0], usage=usage)


def cosines(query: Embedding, found: Sequence[Embedding]) -> list[Score]:
    """Return the cosine of the query's and each text's embedding; the first bears the cost of the query."""
    return [
        Score(
            value=_cosine(query.vector, one.vector),
            usage=Usage(
                prompt_tokens=one.usage.prompt_tokens + (0 if place else query.usage.prompt_tokens),
                completion_tokens=0,
                cached_tokens=one.usage.cached_tokens + (0 if place else query.usage.cached_tokens),
            ),
        )
        for place, one in enumerate(found)
    ]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = hypot(*one) * hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


async def _pooled(
    llm: Any, token_ids: list[int], params: dict[str, Any], lora: Any, context: int
) -> tuple[list[float], Usage]:
    if len(token_ids) > context:
        message = f"the prompt has {len(token_ids)} tokens, the model takes {context}; shorten the prompt"
        raise ContextOverflow(message, param="input")
    output: Any = None
    with MAPPED:
        prompt = {"type": "token", "prompt_token_ids": token_ids}
        async for answer in llm.encode(
            prompt, _vllm.PoolingParams(**params), new_request_id("pool"), lora_request=lora
        ):
            output = answer
    usage = Usage(prompt_tokens=len(token_ids), completion_tokens=0, cached_tokens=output.num_cached_tokens or 0)
    return output.outputs.data.reshape(-1).tolist(), usage
