"""Keep the account of a batch: every row that came in went out, as an answer or as an error."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from trunnion.errors import TrunnionError

_LEAST_ROWS: Final = 100
"""Rows before a share of errors means anything."""
_EXAMPLE: Final = 500
"""Characters of an example."""
_COST_DIGITS: Final = 9
"""Behind the point: one token of a cheap model still costs something, and sums of floats end in noise behind these."""
SUMS: Final = (
    "replayed", "replayed_tokens", "replayed_prompt_tokens", "replayed_cached_tokens",
    "prompt_tokens", "cached_tokens", "completion_tokens",
)  # fmt: skip
"""The counts of rows and tokens that parts of a run are added up in, and that rows need not tell."""

TOO_MANY_ERRORS: Final = "too_many_errors"


@dataclass(slots=True, kw_only=True)
class ErrorKind:
    """Count the rows that failed with one code, and keep the first of them.

    ``row`` is its number in the input; None where that is not known.
    """

    count: int = 0
    row: int | None = None
    message: str = ""


@dataclass(slots=True, kw_only=True)
class Account:
    """Count rows and tokens.

    Attributes:
        max_error_rate: Share of failed rows at which the batch is given up; None for never.
        ok, failed: Rows that went out.
        replayed: Of the answered ones, those that a journal answered.
        replayed_tokens: Of ``completion_tokens``, those of rows that a journal answered.
        replayed_prompt_tokens, replayed_cached_tokens: Of ``prompt_tokens`` and ``cached_tokens``, those as well.
        prompt_tokens, cached_tokens, completion_tokens: Tokens of the rows that went out.
        errors: The failed rows, by code.
        prices: Of a million tokens: ``input``, ``cached_input`` and ``output``, as ``EngineInfo.details["prices"]``
            tells them, for rows that bring none; None where nothing is known to cost.
        cost: What this run paid for its tokens; answers that were known cost nothing. None without prices.
        began: When the first row could start, ``time.monotonic()``.
    """

    max_error_rate: float | None = None
    ok: int = 0
    failed: int = 0
    replayed: int = 0
    replayed_tokens: int = 0
    replayed_prompt_tokens: int = 0
    replayed_cached_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    errors: dict[str, ErrorKind] = field(default_factory=dict)
    prices: Mapping[str, float] | None = None
    cost: float | None = None
    began: float = field(default_factory=time.monotonic)

    @property
    def rows(self) -> int:
        """Return the rows that went out."""
        return self.ok + self.failed

    @property
    def new_rows(self) -> int:
        """Return the rows that were work of this run: without those whose answers were known."""
        return max(0, self.rows - self.replayed)

    @property
    def read_tokens(self) -> int:
        """Return the prompt tokens that this run had read: without those of answers that were known."""
        return self.prompt_tokens - self.replayed_prompt_tokens

    @property
    def generated_tokens(self) -> int:
        """Return the tokens that this run had generated: without those of answers that were known."""
        return self.completion_tokens - self.replayed_tokens

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self.began

    def add(
        self,
        columns: Mapping[str, Any],
        *,
        replayed: bool = False,
        prices: Mapping[str, float] | None = None,
        number: int | None = None,
    ) -> None:
        """Count one row by its output columns.

        Args:
            columns: What came out.
            replayed: Whether its answer was known.
            prices: Of its model.
            number: The row's number in its input, its line if that has lines; None: that of the row among those out;
                0: not known.

        Raises:
            TrunnionError: Too large a share of the rows failed; ``code`` is :data:`TOO_MANY_ERRORS`.
        """
        error = columns.get("error")
        usage = columns.get("usage") or {}
        prompt, completion = columns.get("num_input_tokens") or 0, columns.get("num_generated_tokens") or 0
        if error is None or usage:  # a row whose postprocess failed was answered
            cached = usage.get("cached_tokens") or 0
            self.prompt_tokens += prompt
            self.cached_tokens += cached
            self.completion_tokens += completion
            prices = prices or self.prices
            if prices is not None:
                self.cost = (self.cost or 0.0) + (0.0 if replayed else price(prices, prompt, cached, completion))
            if replayed:
                self.replayed += 1
                self.replayed_tokens += completion
                self.replayed_prompt_tokens += prompt
                self.replayed_cached_tokens += cached
        if error is None:
            self.ok += 1
            return
        self.failed += 1
        code, message = _described(error)
        row = self.rows if number is None else number or None
        kind = self.errors.setdefault(code, ErrorKind(row=row, message=message[:_EXAMPLE]))
        kind.count += 1
        self._check()

    def take(self, counted: Mapping[str, Any]) -> None:
        """Take from a summary what rows need not tell: their tokens, their cost, and which answers were known."""
        for name in SUMS:
            setattr(self, name, counted[name])
        self.cost = counted.get("cost")

    def _check(self) -> None:
        check_errors(self.failed, self.rows, self.max_error_rate)

    def balance(self, n_in: int) -> None:
        """Raise AssertionError unless every row that came in went out."""
        assert n_in == self.ok + self.failed, f"{n_in} rows in, but {self.ok} ok and {self.failed} failed"

    def kinds(self) -> list[tuple[str, ErrorKind]]:
        """Return the errors, the most frequent first."""
        return sorted(self.errors.items(), key=lambda item: -item[1].count)

    def summary(self, n_in: int | None, *, partial: bool = False, **more: Any) -> dict[str, Any]:
        """Return the account as JSON values; ``partial`` tells that rows were left out."""
        seconds = max(self.seconds, 1e-6)
        return {
            "rows_in": n_in,
            "ok": self.ok,
            "failed": self.failed,
            "partial": partial,
            "replayed": self.replayed,
            "replayed_tokens": self.replayed_tokens,
            "replayed_prompt_tokens": self.replayed_prompt_tokens,
            "replayed_cached_tokens": self.replayed_cached_tokens,
            "seconds": round(seconds, 3),
            "rows_per_second": round(self.new_rows / seconds, 3),
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "tokens_per_second": round(self.generated_tokens / seconds, 3),
            "errors": [{"code": code, "count": kind.count, "example": _example(kind)} for code, kind in self.kinds()],
            **({} if self.cost is None else {"cost": round(self.cost, _COST_DIGITS)}),
            **more,
        }


def _example(kind: ErrorKind) -> dict[str, Any]:
    return {**({} if kind.row is None else {"row": kind.row}), "message": kind.message}


def price(prices: Mapping[str, float], prompt: int, cached: int, completion: int) -> float:
    """Return what tokens cost: ``cached`` of the ``prompt`` tokens at their own price."""
    whole = (prompt - cached) * prices["input"] + cached * prices["cached_input"] + completion * prices["output"]
    return whole / 1e6


def check_errors(failed: int, rows: int, limit: float | None) -> None:
    """Raise the error that ends a batch if too large a share of its rows failed; ``limit`` None: never."""
    if limit is None or rows < _LEAST_ROWS or failed <= limit * rows:
        return
    raise TrunnionError(
        f"{failed} of {rows} rows failed, more than max_error_rate={limit:g} allows; what was answered is kept",
        code=TOO_MANY_ERRORS,
        param="max_error_rate",
    )


def _described(error: Any) -> tuple[str, str]:
    if isinstance(error, str):  # of a mirrored configuration, which keeps text alone
        try:
            error = json.loads(error)
        except ValueError:
            return "error", error
    if isinstance(error, Mapping):
        return str(error.get("code") or "error"), str(error.get("message") or "")
    return "error", str(error)
