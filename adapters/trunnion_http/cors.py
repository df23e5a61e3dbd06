"""Let pages of other origins call from a browser, where that was asked for.

See https://fetch.spec.whatwg.org/#http-cors-protocol. Credentials of the browser (cookies) are never let through: keys
travel in headers that a page sets itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .call import Call, Headers

_METHODS: Final = b"GET, POST, DELETE, OPTIONS"
_EXPOSED: Final = b"x-request-id, request-id, retry-after, retry-after-ms"
_SECONDS: Final = b"600"


class CrossOrigin:
    """Know the origins that may call."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.rstrip("/").encode() for origin in origins)

    def look(self, call: Call) -> bool:
        """Add to a call's response what its origin is allowed; return whether it only asks what it may."""
        origin = call.headers.get(b"origin")
        if origin is None:
            return False
        if self._any or origin in self._origins:
            allowed: Headers = [(b"access-control-allow-origin", b"*" if self._any else origin)]
            call.also = [*call.also, *allowed, (b"vary", b"origin"), (b"access-control-expose-headers", _EXPOSED)]
        return call.scope["method"] == "OPTIONS" and b"access-control-request-method" in call.headers

    async def answer(self, call: Call) -> None:
        """Answer a request that asks what it may."""
        lines: Headers = []
        if any(name == b"access-control-allow-origin" for name, _ in call.also):
            wanted = call.headers.get(b"access-control-request-headers", b"authorization, content-type")
            lines = [
                (b"access-control-allow-methods", _METHODS),
                (b"access-control-allow-headers", wanted),
                (b"access-control-max-age", _SECONDS),
            ]
        await call.answer(b"", status=204, headers=lines, content_type=b"text/plain")
