"""Fit a step's time to measured steps: least squares of the relative error, no coefficient below zero."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError

from trunnion import PluginConfig
from trunnion.errors import InvalidArgument

from .step_time import StepTime

_NAMES: Final = ("base", "per_sequence", "per_context_token", "per_prompt_token")
_TINY: Final = 1e-12


class MeasuredStep(PluginConfig):
    """Hold one measured step of a batch."""

    decodes: int = Field(ge=0, description="Sequences that got a token.")
    context: int = Field(ge=0, description="Tokens of context of all sequences together.")
    prefill: int = Field(0, ge=0, description="Prompt tokens computed.")
    seconds: float = Field(gt=0, description="How long the step took.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Hold fitted times, and the relative error over the measured steps (0.1 is ten percent)."""

    step: StepTime
    steps: int
    median_error: float
    p90_error: float
    worst_error: float


def read_steps(path: str | Path) -> list[MeasuredStep]:
    """Return the ``steps`` of a JSON file such as ``benches/sim_steps.py`` writes.

    Raises:
        InvalidArgument: The file holds no such thing.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        steps = found["steps"]
        return [MeasuredStep(**step) for step in steps]
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{path}: a step is wrong: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise InvalidArgument(message, param="results") from error
    except (ValueError, KeyError, TypeError) as error:
        message = f'{path} is no JSON object with "steps": [{{"decodes", "context", "prefill", "seconds"}}, ...]'
        raise InvalidArgument(message, param="results") from error


def fit(steps: Sequence[MeasuredStep]) -> Fit:
    """Return the times that fit best.

    Every set of coefficients is tried with the others at zero; with four of them that is exact.

    Raises:
        InvalidArgument: There are too few steps, or too few that differ.
    """
    if len(steps) < len(_NAMES):
        raise InvalidArgument(f"{len(steps)} steps are too few to fit; measure at least {len(_NAMES)}", param="results")
    rows = [[v / s.seconds for v in (1.0, s.decodes, s.context, s.prefill)] for s in steps]
    best: tuple[float, list[float]] | None = None
    for count in range(1, len(_NAMES) + 1):
        for active in itertools.combinations(range(len(_NAMES)), count):
            solved = _least_squares([[row[i] for i in active] for row in rows])
            if solved is None or min(solved) < 0:
                continue
            whole = [0.0] * len(_NAMES)
            for index, value in zip(active, solved, strict=True):
                whole[index] = value
            residual = sum((sum(a * b for a, b in zip(row, whole, strict=True)) - 1) ** 2 for row in rows)
            if best is None or residual < best[0] - _TINY:
                best = (residual, whole)
    if best is None:
        raise InvalidArgument("no times fit these steps; are they all alike?", param="results")
    step = StepTime(**{name: float(f"{value:.4g}") for name, value in zip(_NAMES, best[1], strict=True)})
    errors = sorted(abs(step.seconds(s.decodes, s.context, s.prefill) / s.seconds - 1) for s in steps)
    return Fit(
        step=step,
        steps=len(steps),
        median_error=statistics.median(errors),
        p90_error=errors[int(0.9 * (len(errors) - 1))],
        worst_error=errors[-1],
    )


def _least_squares(rows: list[list[float]]) -> list[float] | None:
    """Return x that brings ``rows @ x`` nearest to ones; None where it is not determined."""
    size = len(rows[0])
    scale = [max(abs(row[i]) for row in rows) or 1.0 for i in range(size)]
    scaled = [[value / scale[i] for i, value in enumerate(row)] for row in rows]
    matrix = [[sum(row[i] * row[j] for row in scaled) for j in range(size)] for i in range(size)]
    right = [sum(row[i] for row in scaled) for i in range(size)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda i: abs(matrix[i][column]))
        if abs(matrix[pivot][column]) < _TINY:
            return None
        matrix[column], matrix[pivot] = matrix[pivot], matrix[column]
        right[column], right[pivot] = right[pivot], right[column]
        for i in range(column + 1, size):
            factor = matrix[i][column] / matrix[column][column]
            right[i] -= factor * right[column]
            matrix[i] = [a - factor * b for a, b in zip(matrix[i], matrix[column], strict=True)]
    for i in reversed(range(size)):
        rest = sum(matrix[i][j] * right[j] for j in range(i + 1, size))
        right[i] = (right[i] - rest) / matrix[i][i]
    return [value / scale[i] for i, value in enumerate(right)]
