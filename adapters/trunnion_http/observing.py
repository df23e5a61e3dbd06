"""Tell of requests that are over: a span, a log line, both or, at no cost, neither."""

from __future__ import annotations

from typing import Any

from trunnion.timing import MARKS, Marks

from .account import Account
from .call import Call
from .request_log import LogFormat, fields, log_request
from .settings import HTTPSettings
from .tracing import Tracing, find_tracer


class Observer:
    """Follow the requests of one app."""

    def __init__(self, tracing: Tracing | None, log: LogFormat | None) -> None:
        self._tracing = tracing
        self._log = log

    @classmethod
    def of(cls, settings: HTTPSettings) -> Observer | None:
        """Return what the settings ask for; None if that is nothing. Raises :class:`ConfigError`."""
        tracer = find_tracer(settings.traces)
        if tracer is None and not settings.log_requests:
            return None
        log = settings.log_format if settings.log_requests else None
        return cls(None if tracer is None else Tracing(tracer), log)

    def begin(self, call: Call) -> Any:
        """Take a request in, in the task that runs it; returns what :meth:`end` wants."""
        call.account = account = Account()
        if call.marks is None:
            call.marks = Marks()
            MARKS.set(call.marks)
        return None if self._tracing is None else self._tracing.begin(call, account)

    def end(self, call: Call, begun: Any, *, gone: bool) -> None:
        """Tell of it, in the same task."""
        account = call.account
        assert account is not None, "begin() made one"
        if self._tracing is not None:
            self._tracing.end(call, account, begun, gone=gone)
        if self._log is not None:
            log_request(fields(call, account, gone=gone), self._log)
