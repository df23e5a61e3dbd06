"""Trace inference requests with OpenTelemetry, under its GenAI names: one server span each, never a prompt.

Only ``opentelemetry-api`` is used, and imported only where tracing is on. Names are those of
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ and of the HTTP server spans beside it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trunnion
from trunnion.errors import ConfigError

from .account import Account
from .call import Call, path_of

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

OPERATIONS: Final = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/audio/transcriptions": "transcription",
    **dict.fromkeys(("/v1/score", "/score"), "score"),
    **dict.fromkeys(("/v1/rerank", "/v2/rerank", "/rerank"), "rerank"),
    **dict.fromkeys(("/v1/classify", "/classify"), "classify"),
}
"""The paths that are traced, and what OpenTelemetry calls them; it has no names for the last four."""
_FIRST_SERVER_ERROR: Final = 500
INSTALL: Final = "pip install 'trunnion[otel]'"


def find_tracer(wanted: bool | None) -> Tracer | None:  # noqa: FBT001 - the setting as it stands
    """Return what makes spans; None where tracing is off.

    Args:
        wanted: The setting ``traces``; None asks whether this process has a tracer provider.

    Raises:
        ConfigError: Tracing is wanted and OpenTelemetry is not installed.
    """
    if wanted is False or (wanted is None and "opentelemetry.trace" not in sys.modules):
        return None  # whoever has set a provider up has imported it
    try:
        from opentelemetry import trace
    except ImportError as error:
        raise ConfigError(f"traces: OpenTelemetry is not installed; {INSTALL}", param="traces") from error
    if wanted is None and not has_provider():
        return None
    return trace.get_tracer("trunnion.http", trunnion.__version__)


def has_provider() -> bool:
    """Tell whether this process has a tracer provider that does something. Needs OpenTelemetry's API."""
    from opentelemetry import trace

    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


class Tracing:
    """Begin and end the spans of one app."""

    def __init__(self, tracer: Tracer) -> None:
        from opentelemetry import context, propagate, trace

        self._tracer = tracer
        self._context = context
        self._propagate = propagate
        self._trace = trace
        self._getter: Any = _Headers()
        self._error = trace.Status(trace.StatusCode.ERROR)

    def begin(self, call: Call, account: Account) -> Any:
        """Begin the request's span, if its path is traced; returns what :meth:`end` wants.

        The span becomes the current one, so that what hooks and engines of this process trace lies below it.
        """
        scope = call.scope
        path = path_of(scope).rstrip("/")
        operation = OPERATIONS.get(path)
        if operation is None or scope["method"] != "POST":
            return None
        came = self._propagate.extract(call.headers, getter=self._getter)
        attributes = {
            "gen_ai.operation.name": operation,
            "http.request.method": "POST",
            "http.route": f"{scope.get('root_path') or ''}{path}",
            "url.path": scope["path"],
            "url.scheme": scope.get("scheme") or "http",
        }
        span = self._tracer.start_span(operation, came, self._trace.SpanKind.SERVER, attributes)
        inside = self._trace.set_span_in_context(span, came)
        carrier: dict[str, str] = {}
        self._propagate.inject(carrier, inside)
        held = span.get_span_context()
        account.span = span
        account.carrier = carrier or None
        if held.is_valid:
            account.trace_id, account.span_id = f"{held.trace_id:032x}", f"{held.span_id:016x}"
        return self._context.attach(inside)

    def end(self, call: Call, account: Account, begun: Any, *, gone: bool) -> None:
        """End the span with what became of the request."""
        if begun is None:
            return
        self._context.detach(begun)
        span = account.span
        if span.is_recording():
            if account.model:
                span.update_name(f"{OPERATIONS[path_of(call.scope).rstrip('/')]} {account.model}")
            span.set_attributes(_result(call, account, gone=gone))
            if not gone and call.status >= _FIRST_SERVER_ERROR:
                span.set_status(self._error)
            for name, moment in (("engine.asked", call.marks and call.marks.handed), ("first.token", account.first)):
                if moment:
                    span.add_event(name, timestamp=_nanoseconds(moment))
        span.end()


def _nanoseconds(moment: float) -> int:
    """Return a moment of ``time.perf_counter()`` as nanoseconds since the epoch."""
    return time.time_ns() - int((time.perf_counter() - moment) * 1e9)


def _result(call: Call, account: Account, *, gone: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "gen_ai.provider.name": account.engine or None,
        "gen_ai.request.model": account.asked or call.model or None,
        "gen_ai.response.model": account.model or None,
        "gen_ai.response.id": account.response_id or None,
        "gen_ai.response.finish_reasons": account.finish_reasons or None,
        "http.response.status_code": call.status or None,
        "trunnion.request.id": call.request_id,
    }
    if account.request is not None:
        told |= _asked(account)
    if account.first:
        told["gen_ai.response.time_to_first_chunk"] = account.first - call.began
    usage = call.usage
    if usage is not None:
        told["gen_ai.usage.input_tokens"] = usage.prompt_tokens
        told["gen_ai.usage.output_tokens"] = usage.completion_tokens
        told["gen_ai.usage.cache_read.input_tokens"] = usage.cached_tokens
        told["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning_tokens or None
    if gone:
        told["error.type"] = "client_gone"
    elif account.error is not None:
        told["error.type"] = account.error.code
    return {name: value for name, value in told.items() if value is not None}


def _asked(account: Account) -> dict[str, Any]:
    request = account.request
    assert request is not None
    sampling = request.sampling
    wanted = request.output_format
    return {
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": sampling.top_k,
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.seed": sampling.seed,
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
        "gen_ai.request.choice.count": sampling.n if sampling.n > 1 else None,
        "gen_ai.request.stream": True if request.delivery == "delta" else None,
        "gen_ai.output.type": "json" if wanted is not None and wanted.kind.startswith("json") else "text",
    }


class _Headers:
    """Read the headers of an ASGI scope; a getter of OpenTelemetry's propagators."""

    def get(self, carrier: Mapping[bytes, bytes], key: str) -> list[str] | None:
        """Return the values of a header."""
        value = carrier.get(key.lower().encode("latin-1"))
        return None if value is None else [value.decode("latin-1")]

    def keys(self, carrier: Mapping[bytes, bytes]) -> list[str]:
        """Return the names of the headers."""
        return [name.decode("latin-1") for name in carrier]
