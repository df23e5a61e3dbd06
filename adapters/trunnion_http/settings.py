"""Define the settings of the HTTP surface."""

from __future__ import annotations

from pydantic import Field

from trunnion.plugin import PluginConfig


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
        description="Name of the environment variable that holds the API keys, comma separated; None asks for no key.",
    )
    disconnect_interval: float = Field(
        default=0.2, gt=0, description="Seconds between looks at whether clients of long requests have hung up."
    )
    metrics: bool = Field(default=True, description="Measure requests, and answer GET /metrics, which asks for no key.")
    log_requests: bool = Field(default=False, description="Log one line per request at INFO.")
