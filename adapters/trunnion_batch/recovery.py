"""Say what a batch does when something fails that is not a row's own fault."""

from __future__ import annotations

from pydantic import Field

from trunnion.settings import Settings


class Recovery(Settings):
    """Set how often rows and engines get another chance. Times in seconds."""

    row_retries: int = Field(
        default=3,
        ge=0,
        description="Repetitions of a row whose error may pass (a refusal for load, a lost connection), beyond those "
        "of the engine itself.",
    )
    retry_backoff: float = Field(
        default=1.0,
        ge=0,
        description="Seconds before a row is first repeated; doubled for each further repetition, with a jitter. "
        "What an error asks for (Retry-After) comes first.",
    )
    outage_timeout: float = Field(
        default=300.0,
        ge=0,
        description="Seconds for which a row goes on being repeated, beyond row_retries, where an engine that answered "
        "before cannot be reached any more: an endpoint that is started anew costs no rows. 0, or no row_retries: "
        "rows fail after their repetitions.",
    )
    row_timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds a row may take from when the engine gets it, repetitions included; then it fails with "
        "deadline_exceeded. None: no limit.",
    )
    stall_timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds without any sign of life from an engine that has rows: no answer, no change in its load. "
        "It then counts as dead. Longer than the longest answer takes. None: an engine may take its time.",
    )
    max_engine_restarts: int = Field(
        default=5,
        ge=0,
        description="New engines in a row without one answered row in between, before the job ends.",
    )
    max_unreachable_rows: int | None = Field(
        default=100,
        ge=1,
        description="Rows that fail one after the other, after their repetitions, because the engine cannot be reached "
        "(no connection, no answer in time, 502 to 504 of a gateway), before the job ends; all that are in flight, if "
        "those are fewer, but 10 at least. An answer in between, or a refusal by the engine itself, counts from 0 "
        "again. None: the job goes on, and such rows fail.",
    )


NO_RECOVERY = Recovery(row_retries=0, outage_timeout=0, max_engine_restarts=0)
"""Let the first failure be the last."""
