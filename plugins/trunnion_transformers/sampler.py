"""Sample every request of a step by its own parameters, in the place the library has for logits processors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from . import _hf
from .plan import Plan

_NEVER: Final = float("-inf")
_SMALLEST: Final = 1e-4
"""Temperatures below are taken as this one: dividing by less overflows."""


class Sampler(_hf.LogitsProcessorList):  # type: ignore[misc]
    """Stand in for the library's list of logits processors.

    The library takes the likeliest token of what comes back, so a drawn token comes back as the only one there is.
    Which requests the rows belong to is told right before each step, on the same thread.
    """

    def __init__(self, seed: int | None, device: Any) -> None:
        """Take the seed of the draws that no request's own seed decides."""
        super().__init__(_hf.NoProcessors())
        self._device = device
        self._generator = torch.Generator(device=device)
        if seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(seed)
        self._rows: list[tuple[int, Plan, Any]] = []

    @property
    def do_processing(self) -> bool:
        """Tell the library whether this step has a row to look at."""
        return bool(self._rows)

    @do_processing.setter
    def do_processing(self, value: bool) -> None:
        """Ignore what the library's constructor finds of its own processors."""

    def check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Accept a request: its plan was made here."""

    def prepare_tensor_args(self, requests_in_batch: list[Any], arg_storage: Any) -> Any:
        """Note which rows of the step's logits need more than their likeliest token."""
        rows = self._rows = []
        row = 0
        for request in requests_in_batch:
            if request.has_new_token:
                plan = _hf.plan_of(request.state)
                if not plan.plain:
                    rows.append((row, plan, request.state))
                row += 1
        return arg_storage

    def __call__(self, _input_ids: Any, scores: Any, _arguments: Any) -> Any:
        """Return logits whose likeliest tokens are the step's tokens; shape (rows, vocabulary), float32."""
        rows = self._rows
        raw = {row: torch.log_softmax(scores[row], -1) for row, plan, _ in rows if plan.logprobs is not None}
        for row, plan, state in rows:
            if plan.adjusts:
                adjust(scores[row], plan, _hf.prompt_and_output(state, plan.prompt_tokens))
        drawn = [(row, plan) for row, plan, _ in rows if plan.temperature]
        if drawn:
            places = torch.tensor([row for row, _ in drawn], device=scores.device)
            tokens = self._draw(scores[places], [plan for _, plan in drawn])
            scores[places] = _NEVER
            scores[places, tokens] = 0.0
        for row, plan, _ in rows:
            if plan.logprobs is not None:
                _record(plan, raw[row], int(scores[row].argmax()))
        return scores

    def _draw(self, logits: Any, plans: Sequence[Plan]) -> Any:
        """Return one token per row."""
        temperatures = torch.tensor([max(plan.temperature, _SMALLEST) for plan in plans], device=logits.device)
        probabilities, ids = narrow(logits / temperatures[:, None], plans)
        picks = torch.multinomial(probabilities, 1, generator=self._generator)
        for row, plan in enumerate(plans):
            if plan.seed is not None:
                if plan.generator is None:
                    plan.generator = torch.Generator(device=self._device)
                    plan.generator.manual_seed(plan.seed)
                picks[row] = torch.multinomial(probabilities[row], 1, generator=plan.generator)
        return (picks if ids is None else ids.gather(1, picks))[:, 0]


def narrow(logits: Any, plans: Sequence[Plan]) -> tuple[Any, Any]:
    """Apply top_k, then top_p, then min_p, as the library does.

    Returns:
        Probabilities (not scaled to 1) and the token ids they stand for; None for the vocabulary in its order.
    """
    size = logits.shape[-1]
    if all(not plan.top_k and plan.top_p >= 1 and not plan.min_p for plan in plans):
        return torch.softmax(logits, -1), None
    kept = [min(plan.top_k or size, size) for plan in plans]
    best, ids = logits.topk(max(kept), sorted=True)  # no more than the largest top_k is sorted
    device = logits.device
    beyond = torch.arange(best.shape[-1], device=device) >= torch.tensor(kept, device=device)[:, None]
    probabilities = torch.softmax(best.masked_fill(beyond, _NEVER), -1)
    before = probabilities.cumsum(-1) - probabilities
    top_p = torch.tensor([plan.top_p for plan in plans], device=device)[:, None]
    floor = torch.tensor([plan.min_p for plan in plans], device=device)[:, None] * probabilities[:, :1]
    dropped = ((before >= top_p) & (top_p < 1)) | (probabilities < floor)
    dropped[:, 0] = False
    return probabilities.masked_fill(dropped, 0.0), ids


def adjust(logits: Any, plan: Plan, tokens: tuple[list[int], list[int]]) -> None:
    """Change one row of logits in place: penalties over the tokens so far, bias, and no end before ``min_tokens``."""
    prompt, output = tokens
    size = logits.shape[-1]
    if plan.repetition_penalty != 1.0:
        seen = torch.tensor(sorted({*prompt, *output}), dtype=torch.long, device=logits.device)
        held = logits[seen]
        logits[seen] = torch.where(held > 0, held / plan.repetition_penalty, held * plan.repetition_penalty)
    if output and (plan.frequency_penalty or plan.presence_penalty):
        ids, counts = torch.tensor(output, dtype=torch.long, device=logits.device).unique(return_counts=True)
        logits[ids] -= plan.frequency_penalty * counts + plan.presence_penalty
    for token, bias in (plan.logit_bias or {}).items():
        if 0 <= token < size:
            logits[token] += bias
    if len(output) < plan.min_tokens:
        for token in plan.ends:
            if 0 <= token < size:
                logits[token] = _NEVER


def _record(plan: Plan, logprobs: Any, token: int) -> None:
    """Note the logprob of the token, as the model gave it, and of the likeliest."""
    count = min(plan.logprobs or 0, logprobs.shape[-1])
    values, ids = logprobs.topk(count) if count else (logprobs[:0], logprobs[:0].long())
    plan.records.append((float(logprobs[token]), ids.tolist(), values.tolist()))
