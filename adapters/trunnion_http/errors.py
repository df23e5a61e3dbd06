"""Write errors the way OpenAI's API does: ``{"error": {"message", "type", "param", "code"}}``.

The shape is that of https://platform.openai.com/docs/guides/error-codes; ``Retry-After`` and ``x-should-retry`` are
what OpenAI's clients read before they send a request again.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from trunnion.errors import AdapterNotFound, InternalError, InvalidArgument, NotFound, TrunnionError

_encode = msgspec.json.Encoder().encode

_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
    499: "request_cancelled",
    503: "service_unavailable_error",
    504: "timeout_error",
}
_FIRST_SERVER_ERROR: Final = 500
_RETRY_HINT_FROM: Final = 408


def error_body(error: TrunnionError) -> dict[str, Any]:
    """Return the envelope of an error as JSON values."""
    status = error.http_status
    kind = _TYPES.get(status) or ("server_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error")
    code, param = error.code, error.param
    if isinstance(error, AdapterNotFound) and code == "adapter_not_found":
        # To an OpenAI client an adapter is a model like any other.
        code, param = "model_not_found", param or "model"
    elif param is not None and param.startswith("output_format"):
        param = "response_format"  # what the core calls otherwise, under the name the client sent
    return {"error": {"message": error.message, "type": kind, "param": param, "code": code}}


def encode_error(error: TrunnionError) -> bytes:
    """Return the envelope as JSON bytes, on one line."""
    try:
        return _encode(error_body(error))
    except UnicodeEncodeError:  # a lone surrogate from the client's own text
        return _encode(error_body(_readable(error)))


def error_headers(error: TrunnionError) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell a client whether and when to try again."""
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after is not None and math.isfinite(error.retry_after):
        seconds = max(error.retry_after, 0.0)
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(seconds))))
        headers.append((b"retry-after-ms", b"%d" % round(seconds * 1000)))
    if error.http_status >= _RETRY_HINT_FROM:
        headers.append((b"x-should-retry", b"true" if error.retryable else b"false"))
    return headers


def internal_error() -> TrunnionError:
    """Return what the client sees of an exception that nobody expected: nothing of its insides."""
    return InternalError("The server failed on this request; its log says why.")


def method_not_allowed(method: str, path: str, allowed: str) -> TrunnionError:
    """Return the 405 for a path that knows other methods."""
    msg = f"{method} is not allowed on {path}; use {allowed}"
    return InvalidArgument(msg, http_status=405, code="method_not_allowed")


def unknown_path(method: str, path: str) -> TrunnionError:
    """Return the 404 for a path that nothing serves."""
    return NotFound(f"unknown request URL: {method} {path}; see /v1/models for what is served", code="unknown_url")


def body_too_large(limit: int) -> TrunnionError:
    """Return the 413 for a body beyond ``limit`` bytes."""
    msg = f"the request body exceeds {limit} bytes; send less or raise max_body_bytes"
    return InvalidArgument(msg, http_status=413, code="request_too_large")


def body_too_slow(seconds: float) -> TrunnionError:
    """Return the 408 for a body that did not arrive in time."""
    msg = f"the request body did not arrive within {seconds:g} s"
    return InvalidArgument(msg, http_status=408, code="request_timeout", retryable=True)


def _readable(error: TrunnionError) -> TrunnionError:
    clean = error.message.encode("utf-8", "replace").decode()
    param = error.param.encode("utf-8", "replace").decode() if error.param else None
    return TrunnionError(clean, param=param, code=error.code, http_status=error.http_status)
