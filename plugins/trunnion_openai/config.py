"""Configure the engine for OpenAI-compatible endpoints. Secrets are named by environment variable, never held."""

from __future__ import annotations

import math
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from trunnion.plugin import PluginConfig

from .prices import Prices

OPENAI_URL: Final = "https://api.openai.com/v1"
_SECRET_HEADERS: Final = frozenset({"authorization", "api-key", "x-api-key", "proxy-authorization", "cookie"})


class OpenAIConfig(PluginConfig):
    """Say where the endpoint is, how it is spoken to, and how patient to be. Times are in seconds."""

    base_url: str | tuple[str, ...] = Field(
        default=OPENAI_URL,
        description="Address of the API, up to and with /v1; or several of the same model, which share the requests.",
    )
    api_key_env: str | None = Field(
        default=None,
        description="Name of the environment variable that holds the API key. None: OPENAI_API_KEY for OpenAI's own "
        "address, no key for any other.",
    )
    headers: dict[str, str] = Field(
        default_factory=dict, description="Further request headers. Not for secrets: they travel with the spec."
    )
    headers_env: dict[str, str] = Field(
        default_factory=dict,
        description="Further request headers by the name of the environment variable that holds the value.",
    )
    dialect: Literal["auto", "openai", "vllm", "other"] = Field(
        default="auto",
        description="What the endpoint understands beyond OpenAI's fields. openai: nothing, so it is refused here. "
        "vllm: the extras of vLLM's server (top_k, min_p, structured outputs...). other: not known; they are sent, and "
        "the endpoint's refusal is passed on. auto: what the owner in the list of models says, else other.",
    )
    api: Literal["auto", "chat", "completions"] = Field(
        default="auto",
        description="Which API generates. auto: chat for messages, completions for text and token ids. chat or "
        "completions: an endpoint that has this one alone; what it does not take is refused.",
    )
    weights: tuple[float, ...] | None = Field(
        default=None,
        description="Share of the requests for each address of base_url, in its order; 0 for one that is asked only "
        "while no other can be. None: all the same.",
    )
    concurrency: Literal["adaptive", "fixed"] = Field(
        default="adaptive",
        description="adaptive: as many requests in flight as the endpoint profits from, found by its throughput, fewer "
        "where it refuses them. fixed: max_concurrency at once.",
    )
    max_concurrency: int = Field(
        default=512,
        ge=1,
        description="Requests in flight at once at most, and connections in the one pool; others wait.",
    )
    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Requests sent per minute, repetitions included; None for no limit."
    )
    tokens_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Tokens per minute, prompt and completion: estimated when a request is sent, and set right by the "
        "answer's usage. None for no limit.",
    )
    limit_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Part of the two limits, and of what the endpoint says is left of its own, that this engine may "
        "use. A batch on several replicas divides it by their number itself.",
    )
    keepalive: float = Field(
        default=5.0, ge=0, description="Time an idle connection is kept; below what the server grants."
    )
    connect_timeout: float = Field(default=10.0, gt=0, description="Time for a connection to be made.")
    read_timeout: float = Field(
        default=600.0,
        gt=0,
        description="Time without a byte from the endpoint. An answer that is not streamed comes as one piece, so it "
        "must be done within this time.",
    )
    total_timeout: float | None = Field(
        default=None, gt=0, description="Time for a whole request, waiting and retries included; None for no limit."
    )
    max_retries: int = Field(
        default=2,
        ge=0,
        description="Repetitions of a request that failed in a way that may pass, before its first token alone. "
        "Going on to another address after a connection failed is not counted, nor is a refusal by which the engine "
        "learnt to send less.",
    )
    retry_budget: float = Field(
        default=0.2,
        ge=0,
        description="Repetitions of all requests together, as a share of the requests, and a few more; beyond it a "
        "failure is not repeated, so that an outage does not multiply the load. 429s are not counted while concurrency "
        "is adaptive: they make it send less.",
    )
    retry_backoff: float = Field(
        default=0.5, ge=0, description="Wait before the first repetition; doubled for each further one, less a jitter."
    )
    max_retry_wait: float = Field(
        default=60.0,
        ge=0,
        description="Longest wait before a repetition. A longer Retry-After ends the request, which then tells it.",
    )
    cool_down: float = Field(
        default=10.0, ge=0, description="Time an address that failed is left alone while there are others."
    )
    stream_usage: bool = Field(
        default=True,
        description="Ask for the token counts of streams (stream_options.include_usage); off for endpoints that refuse "
        "it, whose streams then count what can be seen.",
    )
    max_event_bytes: int = Field(
        default=16 * 2**20, ge=1024, description="Size of one event of a stream beyond which it is given up."
    )
    startup_timeout: float = Field(
        default=10.0, gt=0, description="Time for an endpoint to answer at start; it is asked again until then."
    )
    check_endpoint: bool = Field(
        default=True,
        description="Ask for the list of models at start, and refuse a model that is not in it. Off: nothing is asked.",
    )
    health_path: str = Field(
        default="models", description="What a health check asks for, relative to base_url: models, or ../health."
    )
    embedding_batch: int = Field(default=64, ge=1, description="Inputs in one request for embeddings.")
    context_length: int | None = Field(
        default=None, ge=1, description="Tokens that fit, prompt and completion; None: what the list of models says."
    )
    tokenizer: str | None = Field(
        default=None,
        description="Path or name of the model's tokenizer, for stages that need one: with api=completions it lets "
        "messages be templated here.",
    )
    prices: Prices | None = Field(
        default=None, description="Prices of the model; told in EngineInfo.details, for whoever counts the cost."
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields added to the body of every request for text, such as reasoning_effort or provider options.",
    )

    @property
    def base_urls(self) -> tuple[str, ...]:
        """Return the addresses without a slash at the end."""
        urls = (self.base_url,) if isinstance(self.base_url, str) else self.base_url
        return tuple(url.rstrip("/") for url in urls)

    @field_validator("base_url")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        urls = (value,) if isinstance(value, str) else value
        if not urls:
            msg = "name at least one address"
            raise ValueError(msg)
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                msg = f"{url!r} is no address; write it like http://localhost:8000/v1"
                raise ValueError(msg)
            if parts.username or parts.password:
                msg = "an address may hold no password; name the variable that holds the key with api_key_env"
                raise ValueError(msg)
            if parts.query or parts.fragment:
                msg = f"{url!r} has a query or a fragment; give the address up to and with /v1"
                raise ValueError(msg)
        if len(set(urls)) != len(urls):
            msg = "an address is given twice"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        secret = sorted(name for name in self.headers if name.lower() in _SECRET_HEADERS)
        if secret:
            msg = f"header {secret[0]!r} holds a secret; name its environment variable in headers_env or api_key_env"
            raise ValueError(msg)
        if self.weights is not None:
            count = len(self.base_urls)
            if len(self.weights) != count:
                msg = f"weights has {len(self.weights)} values for {count} address(es); give one for each in base_url"
                raise ValueError(msg)
            if min(self.weights) < 0 or not 0 < max(self.weights) < math.inf:
                msg = "weights must be 0 or more, one of them above it"
                raise ValueError(msg)
        twice = {name.lower() for name in self.headers} & {name.lower() for name in self.headers_env}
        if twice:
            msg = f"header {min(twice)!r} is given in headers and in headers_env; keep one"
            raise ValueError(msg)
        return self
