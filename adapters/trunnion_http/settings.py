"""Define the settings of the HTTP surface."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from trunnion.plugin import PluginConfig


class BatchSettings(PluginConfig):
    """Keep files and batches, OpenAI's ``/v1/files`` and ``/v1/batches``. Units are bytes and seconds."""

    folder: str = Field(
        min_length=1,
        description="Folder where files and batches live. All replicas of an application share it, and no other "
        "application does.",
    )
    max_file_bytes: int = Field(
        default=200 * 1024 * 1024, ge=1, description="Largest file that may be uploaded; more is a 413."
    )
    retention: float | None = Field(
        default=30 * 86_400.0,
        gt=0,
        description="Seconds that files are kept after they were made, and batches after their end; None for ever. A "
        "request may ask for another time for its files.",
    )
    lines_in_flight: int = Field(
        default=16, ge=1, description="Lines that one process asks its engine at once, of all its batches together."
    )
    max_running: int = Field(
        default=4, ge=1, description="Batches that one process runs at once; further ones wait, the oldest first."
    )
    priority: int = Field(
        default=1,
        ge=-(2**31),
        le=2**31 - 1,
        description="Priority of lines that name none, where the engine has priorities; lower runs first, and requests "
        "of others have 0.",
    )
    retries: int = Field(
        default=5,
        ge=0,
        description="Times that a line is asked again after a failure that may pass, before its batch waits for the "
        "engine to come back. A full queue is waited for without limit.",
    )
    lease_seconds: float = Field(
        default=15.0,
        gt=0,
        description="Seconds after its last sign of life from which a replica of another machine counts as dead, and "
        "others take its batches over.",
    )


_ORIGIN: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://[^/]+/?")


def _origin(given: str) -> str:
    if given != "*" and not _ORIGIN.fullmatch(given):
        raise ValueError(f"{given!r} is no origin: that is scheme and host, such as https://app.example.com, or *")
    return given


class HTTPSettings(PluginConfig):
    """Set limits and keys of the OpenAI-compatible surface. Units are bytes and seconds."""

    max_body_bytes: int = Field(default=32 * 1024 * 1024, ge=1, description="Largest request body; more is a 413.")
    body_timeout: float = Field(
        default=60.0, gt=0, description="Seconds a body that comes in pieces may take from its first piece; then 408."
    )
    request_timeout: float | None = Field(
        default=None,
        gt=0,
        description="Seconds a generation may take, as the request's deadline; None for no limit. A client's header "
        "X-Request-Timeout may ask for less.",
    )
    max_choices: int = Field(
        default=1024, ge=1, description="Most choices of one request: prompts times n; more is a 400."
    )
    max_requests: int | None = Field(
        default=None,
        ge=1,
        description="Requests inside one process at once, running or waiting; more are refused with 429 and "
        "Retry-After. None for no limit.",
    )
    api_keys_env: str | None = Field(
        default=None,
        description="Name of the environment variable that holds the API keys, comma separated, each as KEY or "
        "NAME: KEY; None asks for no key.",
    )
    api_keys_file: str | None = Field(
        default=None, description="File with further API keys, one a line, as KEY or NAME: KEY; # begins a remark."
    )
    admin_keys_env: str | None = Field(
        default=None,
        description="The same for keys that may also load adapters, put engines to sleep and forget caches; without "
        "any nobody may.",
    )
    admin_keys_file: str | None = Field(default=None, description="File with such keys.")
    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = Field(
        default=(),
        description="Origins whose pages may call from a browser, such as https://app.example.com, or * for any. Empty "
        "for none.",
    )
    batches: BatchSettings | None = Field(
        default=None, description="Keep files and batches; None answers that they are switched off."
    )
    disconnect_interval: float = Field(
        default=0.2, gt=0, description="Seconds between looks at whether clients of long requests have hung up."
    )
    metrics: bool = Field(default=True, description="Measure requests, and answer GET /metrics, which asks for no key.")
    log_requests: bool = Field(
        default=False, description="Log one line per request, at INFO to the logger trunnion.http.requests."
    )
    log_format: Literal["json", "text"] = Field(default="json", description="What these lines are.")
    traces: bool | None = Field(
        default=None,
        description="Trace inference requests with OpenTelemetry. None: where the process has a tracer provider when "
        "the app is made.",
    )
    page: bool = Field(
        default=True, description="Answer GET / with a page where HTML is asked for; it needs no key itself."
    )
