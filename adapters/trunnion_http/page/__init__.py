"""Answer ``GET /`` with a page for people: what is served, how busy it is, and a place to try it.

One document, with its style and its script inside: nothing is loaded from anywhere, and the browser is told to refuse
whatever is not what was shipped. It asks the routes that everyone has, by addresses relative to its own.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trunnion_http.call import Call, Headers

CONTENT_TYPE: Final = b"text/html; charset=utf-8"
_SCRIPTS: Final = ("figures.js", "chat.js", "main.js")


def wants_page(call: Call) -> bool:
    """Tell whether a request for the root comes from a browser; clients of the API get the API's error."""
    return b"text/html" in call.headers.get(b"accept", b"") and call.scope["method"] in ("GET", "HEAD")


async def answer_page(call: Call) -> None:
    """Answer with the page."""
    body, headers = _document()
    await call.answer(body, headers=headers, content_type=CONTENT_TYPE)


@cache
def _document() -> tuple[bytes, Headers]:
    """Return the page, and the headers that bind the browser to it."""
    style = _read("style.css")
    script = '"use strict";\n' + "".join(map(_read, _SCRIPTS))
    page = _read("index.html").replace("/* style */", style).replace("/* script */", script)
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "img-src data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )
    return page.encode(), [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cache-control", b"no-cache"),
        (b"vary", b"accept"),
    ]


def _read(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the source expression that allows this text inside the page, and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
