"""Map what an endpoint refuses, and how it fails, onto the one error tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from trunnion.errors import (
    AdapterNotFound,
    AuthenticationFailed,
    Cancelled,
    ContextOverflow,
    DeadlineExceeded,
    InternalError,
    InvalidArgument,
    ModelNotFound,
    NotFound,
    Overloaded,
    PermissionDenied,
    Transient,
    TrunnionError,
    UnsupportedFeature,
)

# Words of the wire, to ours. The longest name that a message holds as a word wins.
FIELDS: Final = {
    "response_format": "output_format",
    "structured_outputs": "output_format",
    "json_schema": "output_format",
    "regex": "output_format",
    "grammar": "output_format",
    "max_completion_tokens": "max_tokens",
    "top_logprobs": "logprobs",
    "messages": "messages",
    "image_url": "media.image",
    "input_audio": "media.audio",
    "video_url": "media.video",
    "stream_options": "stream_usage",
    **{
        name: name
        for name in (
            "temperature", "top_p", "top_k", "min_p", "max_tokens", "min_tokens", "stop", "stop_token_ids",
            "include_stop_str_in_output", "ignore_eos", "seed", "presence_penalty", "frequency_penalty",
            "repetition_penalty", "logit_bias", "logprobs", "prompt_logprobs", "skip_special_tokens", "tools",
            "tool_choice", "parallel_tool_calls", "priority", "cache_salt", "model", "prompt", "input", "dimensions",
            "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
        )
    },
}  # fmt: skip
_ORDERED: Final = sorted(FIELDS, key=len, reverse=True)
_UNSUPPORTED_CODES: Final = frozenset(
    {"unsupported_feature", "unsupported_parameter", "unsupported_value", "unknown_parameter", "unsupported_country"}
)
_UNSUPPORTED: Final = re.compile(
    r"not (yet |currently )?support|does not support|unsupported|is not enabled|unrecognized|unknown (parameter|"
    r"field|argument|name)|unexpected (field|keyword)|extra (inputs|fields) (are )?not (permitted|allowed)"
    r"|extra_forbidden|is only (supported|available) ",
    re.IGNORECASE,
)
_OVERFLOW: Final = re.compile(
    r"context[ _-]?(length|window|size)|maximum (model|prompt|input|sequence) length|longer than the maximum|"
    r"max_model_len|too many tokens|prompt is too long",
    re.IGNORECASE,
)
_QUOTA: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_PASSING: Final = frozenset({408, 409, 425, 500, 502, 503, 504, 520, 522, 524, 529})
_SHORT: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """Hold what an endpoint says of a failure. ``should_retry`` is its own word on that, if it has one."""

    message: str
    code: str = ""
    param: str | None = None
    retry_after: float | None = None
    should_retry: bool | None = None


def complaint(body: Any, *, retry_after: float | None = None, should_retry: bool | None = None) -> Complaint:
    """Read the body of an error: OpenAI's envelope, FastAPI's ``detail``, or anything else as text."""
    inner = body
    if isinstance(body, Mapping):
        inner = next((body[key] for key in ("error", "detail") if body.get(key)), body)
    if isinstance(inner, Mapping):
        message = inner.get("message") or inner.get("detail") or (str(dict(inner)) if inner else "")
        code, param = inner.get("code") or inner.get("type"), inner.get("param")
    else:
        message, code, param = inner, body.get("code") if isinstance(body, Mapping) else "", None
    text = str(message or "no reason given").strip()
    return Complaint(
        message=text if len(text) <= _SHORT else f"{text[:_SHORT]}...",
        code=str(code or ""),
        param=param if isinstance(param, str) and param else None,
        retry_after=retry_after,
        should_retry=should_retry,
    )


def status_error(status: int, said: Complaint, *, where: str, adapter: str | None = None) -> TrunnionError:
    """Return the error of the tree for an error status, whatever its body.

    Args:
        status: The HTTP status, or the code within an error that came with another status.
        said: What the endpoint said.
        where: The method's address, for the message.
        adapter: The adapter that was asked for: a model that does not exist is then the adapter.
    """
    message = f"{where} answered {status}: {said.message}"
    error = _by_status(status, said, message, adapter)
    error.retry_after = said.retry_after
    if said.should_retry is not None:
        error.retryable = said.should_retry
    error.details = {"status": status, **({"endpoint_code": said.code} if said.code else {})}
    return error


def _by_status(  # noqa: PLR0911 - a table of statuses
    status: int, said: Complaint, message: str, adapter: str | None
) -> TrunnionError:
    if said.code in _BY_CODE:
        return _BY_CODE[said.code](message)
    if status == 429:  # noqa: PLR2004
        return Overloaded(message, retryable=said.code not in _QUOTA)
    if status in _PASSING:
        return InternalError(message, retryable=True) if status == 500 else Transient(message)  # noqa: PLR2004
    if status in (400, 413, 422):
        return refusal(said, message, status)
    if status == 401:  # noqa: PLR2004
        return AuthenticationFailed(f"{message}; name the variable that holds the key with api_key_env")
    if status in (402, 403):
        return PermissionDenied(message)
    if status in (404, 410):
        return _not_found(said, message, adapter)
    if 300 <= status < 400:  # noqa: PLR2004
        return NotFound(f"{message}; the address leads elsewhere: write in base_url where it leads to")
    if status in (405, 501):
        return UnsupportedFeature(f"{message}; the endpoint has no such API")
    if status >= 500:  # noqa: PLR2004
        return InternalError(message)
    return InvalidArgument(message)


_BY_CODE: Final[dict[str, type[TrunnionError]]] = {
    "deadline_exceeded": DeadlineExceeded,
    "cancelled": Cancelled,
    "adapter_not_found": AdapterNotFound,
}


def _not_found(said: Complaint, message: str, adapter: str | None) -> TrunnionError:
    names_model = said.code in ("model_not_found", "NotFoundError") or "model" in said.message.lower()
    if names_model and adapter is not None:
        return AdapterNotFound(message, param="adapter")
    if names_model:
        return ModelNotFound(message, param="model")
    return NotFound(f"{message}; base_url ends in /v1 as a rule")


def refusal(said: Complaint, message: str, status: int = 400) -> InvalidArgument:
    """Return the error for a body that the endpoint does not take; ``param`` names our field where it is named."""
    if said.code == "context_length_exceeded" or (_OVERFLOW.search(said.message) and "token" in said.message.lower()):
        return ContextOverflow(message, param="messages" if said.param is None else our_name(said.param))
    param = _named(said.message) if said.param is None else our_name(said.param)
    if said.code in _UNSUPPORTED_CODES or _UNSUPPORTED.search(said.message):
        return UnsupportedFeature(message, param=param)
    return InvalidArgument(message, param=param, http_status=status)


def our_name(param: str) -> str:
    """Return our word for a field of the wire; a place within one keeps its rest."""
    head, dot, rest = param.partition(".")
    known = FIELDS.get(head)
    return param if known is None or known == head else f"{known}{dot}{rest}"


def _named(message: str) -> str | None:
    for name in _ORDERED:
        if re.search(rf"(?<![A-Za-z0-9_]){name}(?![A-Za-z0-9_])", message):
            return FIELDS[name]
    return None


def said_within(body: Any, *, where: str, adapter: str | None = None) -> TrunnionError:
    """Return the error for an error object that came with a status of success, or as an event of a stream."""
    said = complaint(body if isinstance(body, Mapping) and "error" in body else {"error": body})
    inner = body.get("error", body) if isinstance(body, Mapping) else body
    status = inner.get("code") or inner.get("status") if isinstance(inner, Mapping) else None
    if isinstance(status, str) and status.isdigit():
        status = int(status)
    kind = str(inner.get("type") or "") if isinstance(inner, Mapping) else ""
    if not isinstance(status, int) or not 300 <= status < 600:  # noqa: PLR2004
        status = _TYPES.get(kind) or _TYPES.get(said.code) or 0
    if status:
        return status_error(status, said, where=where, adapter=adapter)
    return InternalError(f"{where} failed: {said.message}", details={"endpoint_code": said.code})


_TYPES: Final = {
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "timeout_error": 504,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "service_unavailable_error": 503,
    "overloaded_error": 503,
    "server_error": 500,
    "server_overloaded": 503,
    "InternalServerError": 500,
}
