"""Write inputs for the embeddings and classification APIs, and read vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from trunnion.engine import Embedding
from trunnion.errors import InternalError, UnsupportedFeature
from trunnion.events import Usage
from trunnion.requests import Prompt, TextPrompt, TokensPrompt

from .errors import said_within
from .wire import decode, embedding_decoder


def inputs(prompts: Sequence[Prompt], size: int, api: str) -> list[tuple[list[int], list[Any]]]:
    """Return batches of at most ``size``: places in the order of the prompts, and values, texts apart from tokens.

    Raises:
        UnsupportedFeature: A prompt is a conversation.
    """
    kinds: dict[str, tuple[list[int], list[Any]]] = {"text": ([], []), "token_ids": ([], [])}
    for index, prompt in enumerate(prompts):
        if isinstance(prompt, TextPrompt):
            value: Any = prompt.text
        elif isinstance(prompt, TokensPrompt):
            value = list(prompt.token_ids)
        else:
            raise UnsupportedFeature(f"the {api} API takes text or token ids, no messages", param="input")
        indexes, values = kinds[prompt.kind]
        indexes.append(index)
        values.append(value)
    return [
        (indexes[start : start + size], values[start : start + size])
        for indexes, values in kinds.values()
        for start in range(0, len(values), size)
    ]


def read_embeddings(data: bytes, values: Sequence[Any], where: str) -> list[Embedding]:
    """Return the embeddings in the order of the inputs.

    Raises:
        InternalError: The answer is no such list, or of another length.
    """
    body = decode(embedding_decoder, data, where)
    if body.error is not None and body.data is None:
        raise said_within(body.error, where=where)
    items = body.data or []
    if len(items) != len(values):
        raise InternalError(f"{where} answered {len(values)} inputs with {len(items)} vectors")
    ordered = sorted(items, key=lambda item: item.index or 0) if all(i.index is not None for i in items) else items
    tokens = 0 if body.usage is None else body.usage.prompt_tokens or 0
    counts = shares(tokens, [len(value) for value in values])
    return [
        Embedding(vector=item.embedding, usage=Usage(prompt_tokens=share, completion_tokens=0))
        for item, share in zip(ordered, counts, strict=True)
    ]


def shares(total: int, lengths: Sequence[int]) -> list[int]:
    """Share a count out by length; the shares add up to it."""
    whole = sum(lengths)
    if not whole:
        return [total] + [0] * (len(lengths) - 1)
    ends = [round(total * end / whole) for end in itertools.accumulate(lengths, initial=0)]
    return [end - start for start, end in itertools.pairwise(ends)]
