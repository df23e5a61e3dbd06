"""Define what creating a batch takes."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta

from trunnion.errors import InvalidArgument
from trunnion_http.wire import decoder
from trunnion_http.wire.requests import Strict

Endpoint = Literal[
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/score",
    "/v1/rerank",
    "/v1/classify",
]
Key = Annotated[str, Meta(max_length=64)]
Value = Annotated[str, Meta(max_length=512)]
Window = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,6}[smhd]$")]

SHORTEST: Final = 3600
LONGEST: Final = 30 * 86_400
"""Bounds, in seconds, of what callers may say of the time that files are kept, as at OpenAI."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class ExpiresAfter(Strict):
    """Say how long files are kept."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=SHORTEST, le=LONGEST)]


class BatchBody(Strict):
    """Hold the body of ``POST /v1/batches``."""

    input_file_id: str
    endpoint: Endpoint
    completion_window: Window
    metadata: Annotated[dict[Key, Value], Meta(max_length=16)] | None = None
    output_expires_after: ExpiresAfter | None = None


decode_batch: Final = decoder(BatchBody)


def window_seconds(window: str) -> int:
    """Return the seconds of a window such as ``24h``. Raises :class:`InvalidArgument` for more than 30 days."""
    seconds = int(window[:-1]) * _UNITS[window[-1]]
    if seconds > LONGEST:
        msg = f"completion_window: {window} is longer than 30d; give a shorter one, such as 24h"
        raise InvalidArgument(msg, param="completion_window")
    return seconds


def kept_seconds(anchor: str | None, seconds: str | None) -> int | None:
    """Return how long an upload is to be kept, of the form's two fields; None where they are left out.

    Raises:
        InvalidArgument: One is missing or wrong.
    """
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise InvalidArgument("expires_after[anchor] must be created_at", param="expires_after[anchor]")
    value = int(seconds) if seconds is not None and seconds.isascii() and seconds.isdigit() else 0
    if not SHORTEST <= value <= LONGEST:
        msg = f"expires_after[seconds] must be a whole number of seconds from {SHORTEST} to {LONGEST}"
        raise InvalidArgument(msg, param="expires_after[seconds]")
    return value
