"""Write one line per request, as JSON or for people to read. No line holds a prompt, an answer or a query string."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import perf_counter
from typing import Any, Final, Literal, TextIO

from .account import Account
from .call import Call
from .wire import encode

LogFormat = Literal["json", "text"]
REQUESTS: Final = logging.getLogger("trunnion.http.requests")
"""What the lines are logged to, at INFO; a record has the fields as ``record.request`` as well."""


def fields(call: Call, account: Account, *, gone: bool) -> dict[str, Any]:
    """Return what is told of a request that is over. Times are in milliseconds."""
    request, usage, marks, error = account.request, call.usage, call.marks, account.error
    handed = 0.0 if marks is None else marks.handed
    told = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "request_id": call.request_id,
        "method": call.scope["method"],
        "path": call.scope["path"],
        "status": call.status or None,
        "model": call.model or None,
        "adapter": account.adapter,
        "tenant": call.tenant,
        "stream": None if request is None else request.delivery == "delta",
        "input_tokens": None if usage is None else usage.prompt_tokens,
        "cached_tokens": None if usage is None else usage.cached_tokens,
        "output_tokens": None if usage is None else usage.completion_tokens,
        "own_ms": _milliseconds(call.began, handed),
        "ttft_ms": _milliseconds(call.began, account.first),
        "total_ms": _milliseconds(call.began, perf_counter()),
        "finish_reasons": account.finish_reasons,
        "error": None if error is None else error.code,
        "client_gone": gone,
    }
    if account.trace_id:
        told |= {"trace_id": account.trace_id, "span_id": account.span_id}
    return told


def log_request(told: Mapping[str, Any], form: LogFormat) -> None:
    """Log one request's fields as one line."""
    if REQUESTS.isEnabledFor(logging.INFO):
        REQUESTS.info("%s", _FORMS[form](told), extra={"request": told})


def write_to(stream: TextIO) -> logging.Handler:
    """Write the bare lines to a stream, and nowhere else; returns the handler that does."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(message)s"))
    REQUESTS.addHandler(handler)
    REQUESTS.setLevel(logging.INFO)
    REQUESTS.propagate = False
    return handler


def _milliseconds(start: float, end: float) -> float | None:
    return round((end - start) * 1000, 3) if end else None


def _as_json(told: Mapping[str, Any]) -> str:
    return encode(told).decode()


def _as_text(told: Mapping[str, Any]) -> str:
    """Return the line's main words, then what else is known as ``name=value``."""
    words = [
        _word(told["request_id"]),
        _word(told["method"]),
        _word(told["path"]),
        str(told["status"] or "-"),
        f"{told['total_ms']:.1f} ms",
    ]
    for name, value in told.items():
        if name in _MAIN or value is None or value is False or value == []:
            continue
        words.append(f"{name}={_word(','.join(value) if isinstance(value, list) else str(value))}")
    return " ".join(words)


def _word(text: str) -> str:
    """Return the text, quoted where it would not be one word: clients choose paths and request ids."""
    return text if text and text.isprintable() and not {" ", '"', "="} & set(text) else json.dumps(text)


_MAIN: Final = frozenset({"time", "request_id", "method", "path", "status", "total_ms"})
_FORMS: Final[dict[LogFormat, Callable[[Mapping[str, Any]], str]]] = {"json": _as_json, "text": _as_text}
