"""Optimise a causal language model on examples, with loss on the labelled tokens only."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from trunnion_demo.training.encoding import IGNORED, batches

if TYPE_CHECKING:
    from random import Random

    from transformers import PreTrainedModel

    from trunnion_demo.training.encoding import Example

log = logging.getLogger(__name__)

_MATRIX = 2
_REPORT = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Say how long and how fast to learn. Rates are peaks; a cosine takes them to zero."""

    steps: int
    batch_tokens: int
    rate: float
    matrix_rate: float | None = None
    warmup: int = 20


def _optimizers(model: PreTrainedModel, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Return Muon for the hidden matrices and AdamW for the rest, or AdamW alone."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    hidden = {
        name
        for name, weight in named
        if schedule.matrix_rate is not None and weight.ndim == _MATRIX and "embed" not in name
    }
    rest = [weight for name, weight in named if name not in hidden]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=schedule.rate, betas=(0.9, 0.98), weight_decay=0.0)
    ]
    if hidden and schedule.matrix_rate is not None:
        matrices = [weight for name, weight in named if name in hidden]
        optimizers.append(
            torch.optim.Muon(
                matrices,
                lr=schedule.matrix_rate,
                weight_decay=0.01,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


def _loss(model: PreTrainedModel, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of the labelled tokens, in nats.

    Only the labelled positions go through the output layer: most tokens are prompt. The model
    runs in bfloat16 where it can (twice as fast on a recent CPU), the loss in float32.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    wanted = labels[:, 1:]
    kept = wanted != IGNORED
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = base.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[kept]
        logits = base.lm_head(hidden)
    return cross_entropy(logits.float(), wanted[kept])


def train(model: PreTrainedModel, examples: list[Example], rng: Random, schedule: Schedule) -> float:
    """Train the model in place and return the mean loss of the last tenth of the steps, in nats."""
    optimizers = _optimizers(model, schedule)
    peaks = [group["lr"] for each in optimizers for group in each.param_groups]
    stream = batches(examples, rng, tokens=schedule.batch_tokens)
    model.train()
    recent: list[float] = []
    started = time.monotonic()
    for step in range(schedule.steps):
        warm = min(1.0, (step + 1) / schedule.warmup)
        scale = warm * 0.5 * (1 + math.cos(math.pi * step / schedule.steps))
        groups = [group for each in optimizers for group in each.param_groups]
        for group, peak in zip(groups, peaks, strict=True):
            group["lr"] = peak * scale
        loss = _loss(model, *next(stream))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in optimizers:
            each.step()
            each.zero_grad()
        recent.append(loss.item())
        if (step + 1) % _REPORT == 0:
            log.info(
                "step %d of %d, loss %.4f, %.0f s",
                step + 1,
                schedule.steps,
                sum(recent[-_REPORT:]) / _REPORT,
                time.monotonic() - started,
            )
    model.eval()
    last = recent[-max(1, schedule.steps // 10) :]
    return sum(last) / len(last)
