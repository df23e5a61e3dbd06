"""Draw the tokens of one choice with llama.cpp's samplers."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from trunnion.errors import InvalidArgument

from ._llama import Model, errors_said
from .plan import Plan

_NEVER: Final = float("-inf")
_SMALLEST: Final = 1e-4
"""Temperatures below are taken as this one: dividing by less overflows."""
_TOKEN: Final = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


class Scratch:
    """Hold the candidates of one draw; the samplers sort and shorten them in place. For one thread."""

    def __init__(self, size: int) -> None:
        """Take the size of the vocabulary."""
        self.ids = np.arange(size, dtype=np.int32)
        self.candidates = np.zeros(size, dtype=_TOKEN)


class TokenSampler:
    """Sample one choice: bias and penalties, then temperature, top_k, top_p, min_p, as the other engines do.

    The grammar looks at the drawn token first, and at the whole vocabulary only where it refuses that one.
    """

    def __init__(self, model: Model, plan: Plan, prompt: Sequence[int]) -> None:
        """Make the samplers; :meth:`close` frees them.

        Raises:
            InvalidArgument: llama.cpp cannot read the grammar.
        """
        self.plan = plan
        self._ends = model.ends
        self._owned: list[Any] = []
        with model.in_use() as lib:
            self._lib = lib
            try:
                self._grammar = None if plan.grammar is None else self._make_grammar(model, plan.grammar)
                self._adjust = self._chain(*self._adjusters(model, prompt)) if plan.adjusts else None
                self._draw = self._chain(*self._drawers())
            except BaseException:
                self.close()
                raise

    def _make_grammar(self, model: Model, text: str) -> Any:
        with errors_said() as lines:
            made = None
            if text.strip() and "\0" not in text:  # none at all is llama.cpp's word for no grammar
                made = self._lib.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
        if not made:
            why = "; ".join(lines[:2]) or "its symbols must begin with root"
            raise InvalidArgument(f"llama.cpp cannot read the grammar (GBNF): {why}", param="output_format")
        self._owned.append(made)
        return made

    def _chain(self, *samplers: Any) -> Any:
        lib = self._lib
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        self._owned.append(chain)
        for sampler in samplers:
            lib.llama_sampler_chain_add(chain, sampler)  # the chain frees it
        return chain

    def _adjusters(self, model: Model, prompt: Sequence[int]) -> list[Any]:
        lib, plan = self._lib, self.plan
        made = []
        room = len(prompt) + plan.max_tokens
        if plan.repetition_penalty != 1.0:
            seen = lib.llama_sampler_init_penalties(model.size, room, plan.repetition_penalty, 0.0, 0.0)
            for token in prompt:  # by itself: the other penalties count the output alone
                lib.llama_sampler_accept(seen, token)
            made.append(seen)
        if plan.frequency_penalty or plan.presence_penalty:
            frequency, presence = plan.frequency_penalty, plan.presence_penalty
            made.append(lib.llama_sampler_init_penalties(model.size, room, 1.0, frequency, presence))
        if plan.logit_bias:
            entries = (lib.llama_logit_bias * len(plan.logit_bias))(*plan.logit_bias.items())
            made.append(lib.llama_sampler_init_logit_bias(model.size, len(entries), entries))
        return made

    def _drawers(self) -> list[Any]:
        lib, plan = self._lib, self.plan
        if not plan.temperature:
            return [lib.llama_sampler_init_greedy()]
        made = [lib.llama_sampler_init_temp(max(plan.temperature, _SMALLEST))]
        if plan.top_k:
            made.append(lib.llama_sampler_init_top_k(plan.top_k))
        if plan.top_p < 1:
            made.append(lib.llama_sampler_init_top_p(plan.top_p, 1))
        if plan.min_p:
            made.append(lib.llama_sampler_init_min_p(plan.min_p, 1))
        return [*made, lib.llama_sampler_init_dist(plan.seed)]

    def sample(self, logits: Any, made: int, scratch: Scratch) -> int | None:
        """Return the next token; None if the grammar leaves none.

        Args:
            logits: Of the whole vocabulary, as the model gave them; they are not changed.
            made: Tokens of this choice so far.
            scratch: Room to work in.
        """
        if self.plan.plain:
            return int(logits.argmax())
        token = self._one(logits, made, scratch, bound=False)
        if self._grammar is not None and (token is None or not self._allows(token)):
            token = self._one(logits, made, scratch, bound=True)
        return token

    def accept(self, token: int) -> None:
        """Tell the samplers of a token that the choice goes on after."""
        for sampler in (self._adjust, self._grammar):
            if sampler is not None:
                self._lib.llama_sampler_accept(sampler, token)

    def ends_at(self, token: int) -> bool:
        """Tell whether a token ends the choice: a grammar that has come to its end has nothing more to say."""
        return token in self.plan.ends or (self._grammar is not None and token in self._ends)

    def _one(self, logits: Any, made: int, scratch: Scratch, *, bound: bool) -> int | None:
        candidates = scratch.candidates
        candidates["id"], candidates["logit"], candidates["p"] = scratch.ids, logits, 0.0
        if made < self.plan.min_tokens:
            candidates["logit"][list(self.plan.ends)] = _NEVER
        array = self._array(candidates)
        if self._adjust is not None:
            self._lib.llama_sampler_apply(self._adjust, ctypes.byref(array))
        if bound:
            self._lib.llama_sampler_apply(self._grammar, ctypes.byref(array))
            if candidates["logit"].max() == _NEVER:
                return None
        self._lib.llama_sampler_apply(self._draw, ctypes.byref(array))
        return int(array.data[array.selected].id) if array.selected >= 0 else None

    def _allows(self, token: int) -> bool:
        one = np.zeros(1, dtype=_TOKEN)
        one["id"], one["logit"] = token, 1.0
        self._lib.llama_sampler_apply(self._grammar, ctypes.byref(self._array(one)))
        return bool(one["logit"][0] != _NEVER)

    def _array(self, candidates: Any) -> Any:
        lib = self._lib
        data = ctypes.cast(candidates.ctypes.data, lib.llama_token_data_p)
        return lib.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)

    def close(self) -> None:
        """Free the samplers. Idempotent; before the model is closed."""
        owned, self._owned = self._owned, []
        for sampler in owned:
            self._lib.llama_sampler_free(sampler)


def logprobs_of(logits: Any, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Return the natural-log probability of a token as the model gave it, and of the ``count`` likeliest."""
    highest = float(logits.max())
    total = highest + float(np.log(np.exp(logits - highest, dtype=np.float64).sum()))
    count = min(count, len(logits))
    best = np.argpartition(-logits, count - 1)[:count] if count else np.zeros(0, dtype=np.int64)
    best = best[np.argsort(-logits[best], kind="stable")]
    return float(logits[token]) - total, [(int(i), float(logits[i]) - total) for i in best]
