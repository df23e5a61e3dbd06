"""Write errors the way Anthropic's API does: ``{"type": "error", "error": {"type", "message"}, "request_id"}``.

The types are those of https://docs.anthropic.com/en/api/errors that its client knows. The envelope has no place for
the field at fault; the message names it.
"""

from __future__ import annotations

from typing import Any, Final

from trunnion.errors import TrunnionError
from trunnion_http.wire.encode import encode

PREFIX: Final = "/v1/messages"
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    429: "rate_limit_error",
    499: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_FIRST_SERVER_ERROR: Final = 500


def is_anthropic(path: str) -> bool:
    """Tell whether a path is answered in Anthropic's format."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def error_body(error: TrunnionError, request_id: str) -> dict[str, Any]:
    """Return the envelope of an error as JSON values."""
    status = error.http_status
    kind = _TYPES.get(status) or ("api_error" if status >= _FIRST_SERVER_ERROR else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}, "request_id": request_id or None}


def encode_error(error: TrunnionError, request_id: str) -> bytes:
    """Return the envelope as JSON bytes, on one line."""
    return encode(error_body(error, request_id))
