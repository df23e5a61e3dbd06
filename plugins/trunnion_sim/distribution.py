"""Say how likely each token is: the one the greedy answer has, then the others of the vocabulary in turn.

At temperature 1 each is :data:`RATIO` times as likely as the one before it. Temperature, ``top_k``, ``top_p`` and
``min_p`` then mean what they mean of any distribution.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Final

from trunnion import SamplingParams, TokenLogprob

RATIO: Final = 0.8
_RANKS: Final = 256
"""Ranks that can be drawn; what lies behind is too unlikely to matter."""


def logprob(rank: int, size: int) -> float:
    """Return the natural log of the probability of the token of this rank, at temperature 1."""
    whole = (1 - RATIO ** min(size, _RANKS)) / (1 - RATIO)
    return rank * math.log(RATIO) - math.log(whole)


@lru_cache(maxsize=256)
def rank_table(
    size: int, temperature: float | None, top_p: float | None, top_k: int | None, min_p: float | None
) -> tuple[int, ...]:
    """Return the rank that each drawn byte stands for."""
    if temperature == 0:
        return (0,) * 256
    ratio: float = RATIO ** (1 / (1.0 if temperature is None else temperature))
    weights = [ratio**rank for rank in range(min(size, _RANKS))]
    if top_k is not None and top_k > 0:
        del weights[top_k:]
    if min_p:
        weights = [weight for weight in weights if weight >= min_p]
    if top_p is not None and top_p < 1:
        wanted = top_p * sum(weights)
        kept = sum(end < wanted for end in itertools.accumulate(weights)) + 1
        del weights[kept:]
    whole, ends = sum(weights), list(itertools.accumulate(weights))
    table, rank = [], 0
    for byte in range(256):
        while rank < len(ends) - 1 and ends[rank] <= (byte + 0.5) / 256 * whole:
            rank += 1
        table.append(rank)
    return tuple(table)


def table_for(sampling: SamplingParams, size: int) -> tuple[int, ...]:
    """Return the table of a request's sampling parameters."""
    return rank_table(size, sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p)


def word_logprob(token: int, best: int, size: int, top: int, names: list[str] | tuple[str, ...]) -> TokenLogprob:
    """Return a drawn token's log probability, with the likeliest alternatives."""
    others = tuple(
        TokenLogprob(token_id=(best + rank) % size, token=names[(best + rank) % size], logprob=logprob(rank, size))
        for rank in range(min(top, size))
    )
    return TokenLogprob(token_id=token, token=names[token], logprob=logprob((token - best) % size, size), top=others)


def certain_logprob(token: int, name: str, top: int, names: list[str] | tuple[str, ...]) -> TokenLogprob:
    """Return the log probability of a token that had to come, with words as its alternatives."""
    likely = -0.01
    first = (TokenLogprob(token_id=token, token=name, logprob=likely),) if top else ()
    left = math.log(1 - math.exp(likely))
    others = tuple(
        TokenLogprob(token_id=rank, token=names[rank], logprob=left + logprob(rank, len(names)))
        for rank in range(min(top - 1, len(names)))
    )
    return TokenLogprob(token_id=token, token=name, logprob=likely, top=first + others)
