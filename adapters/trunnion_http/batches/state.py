"""Hold what is known of a batch."""

from __future__ import annotations

import time
from typing import Any, Final, Literal

import msgspec

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
Ending = Literal["completed", "expired", "cancelled"]
OVER: Final = frozenset({"failed", "completed", "expired", "cancelled"})
_TIMES: Final = (
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)


class LineFault(msgspec.Struct, kw_only=True):
    """Say what is wrong with a line of the input, or with all of it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class Tokens(msgspec.Struct, kw_only=True):
    """Count the tokens of answers."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0


class State(msgspec.Struct, kw_only=True):
    """Hold a batch. Times are Unix timestamps in seconds.

    Attributes:
        tenant: The name of the key it came with; its lines are asked under that name.
        output_seconds: Seconds that its output and error files are kept; None for the server's own retention.
        total, completed, failed: Counts of lines.
        ending: How it ends, once that is known.
        adopted: Bytes that count of the result files of earlier owners, by name.
        trying: The line that is asked alone, because the owner before died; and how often it was.
        wary: Whether an engine failed under the owner before.
    """

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    created_at: int
    expires_at: int
    tenant: str | None = None
    metadata: dict[str, str] | None = None
    output_seconds: int | None = None
    status: Status = "validating"
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    errors: list[LineFault] = []
    model: str | None = None
    total: int = 0
    completed: int = 0
    failed: int = 0
    tokens: Tokens = msgspec.field(default_factory=Tokens)
    output_file_id: str | None = None
    error_file_id: str | None = None
    ending: Ending | None = None
    adopted: dict[str, int] = {}
    trying: int | None = None
    tries: int = 0
    wary: bool = False

    @property
    def over(self) -> bool:
        """Tell whether nothing will change any more."""
        return self.status in OVER

    def move(self, status: Status) -> None:
        """Go over to a status, now."""
        self.status = status
        setattr(self, f"{status}_at", int(time.time()))

    def public(self) -> dict[str, Any]:
        """Return OpenAI's ``batch`` object."""
        faults = [msgspec.to_builtins(fault) for fault in self.errors]
        tokens = self.tokens
        told: dict[str, Any] = {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": faults} if faults else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id if self.over else None,
            "error_file_id": self.error_file_id if self.over else None,
        }
        told |= {name: getattr(self, name) for name in _TIMES}
        told["request_counts"] = {"total": self.total, "completed": self.completed, "failed": self.failed}
        told["usage"] = {
            "input_tokens": tokens.input,
            "input_tokens_details": {"cached_tokens": tokens.cached},
            "output_tokens": tokens.output,
            "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
            "total_tokens": tokens.input + tokens.output,
        }
        told["metadata"] = self.metadata
        return told
