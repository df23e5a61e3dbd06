"""Count what became of the rows of a block."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from trunnion.errors import TrunnionError
from trunnion_batch.account import price

from .block_count import BlockCount
from .runner import Answer, Outcome

_EXAMPLE: Final = 500
"""Characters of an error's message in the account."""


def count_block(
    outcomes: list[Outcome | None], late: Mapping[int, TrunnionError], prices: Mapping[str, float] | None = None
) -> BlockCount:
    """Count what became of a block's rows, but for those of other models, which are None.

    ``late``: the errors of rows that failed after they were answered, here or by another model, which counted them.
    ``prices``: of a million tokens.
    """
    errors: dict[str, tuple[int, str]] = {}
    ok = replayed = prompt = cached = completion = 0
    known_prompt = known_cached = known = 0
    cost = None if prices is None else 0.0
    for index, outcome in enumerate(outcomes):
        final = late.get(index, outcome)
        if outcome is None and final is not None:
            ok -= 1
        if final is None:
            continue
        if isinstance(final, TrunnionError):
            count, message = errors.get(final.code, (0, final.message))
            errors[final.code] = count + 1, message
        else:
            ok += 1
        if isinstance(outcome, Answer):
            replayed += outcome.replayed
            usage = outcome.completion.usage
            if usage is not None:
                prompt += usage.prompt_tokens
                cached += usage.cached_tokens
                completion += usage.completion_tokens
                if outcome.replayed:
                    known_prompt += usage.prompt_tokens
                    known_cached += usage.cached_tokens
                    known += usage.completion_tokens
                if prices is not None and cost is not None and not outcome.replayed:
                    cost += price(prices, usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    return BlockCount(
        rows=sum(outcome is not None for outcome in outcomes),
        ok=ok,
        replayed=replayed,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        errors=tuple((code, count, message[:_EXAMPLE]) for code, (count, message) in errors.items()),
        cost=cost,
        replayed_tokens=known,
        replayed_prompt_tokens=known_prompt,
        replayed_cached_tokens=known_cached,
    )
