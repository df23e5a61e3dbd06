"""Read what lists take in their URL, and write lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from trunnion.errors import InvalidArgument
from trunnion_http.call import Call

from .disk import is_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Say which part of a list is wanted.

    Attributes:
        after: The id after which it begins; None for the beginning.
        limit: Most entries.
        oldest_first: The order.
        purpose: Of files: only those.
    """

    after: str | None
    limit: int
    oldest_first: bool
    purpose: str | None


def read_page(call: Call, prefix: str, *, default: int, most: int, more: Sequence[str] = ()) -> Page:
    """Read ``after``, ``limit`` and what else a list takes. Raises :class:`InvalidArgument`."""
    known = ("after", "limit", *more)
    given: dict[str, str] = {}
    for name, value in parse_qsl(call.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True):
        if name not in known:
            msg = f"unrecognized request argument: {name[:100]!r}; known: {', '.join(known)}"
            raise InvalidArgument(msg)
        given[name] = value
    after = given.get("after")
    if after is not None and not is_id(after, prefix):
        raise InvalidArgument(f"after must be an id of this list, such as {prefix}...", param="after")
    limit = given.get("limit", str(default))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= most):
        raise InvalidArgument(f"limit must be a whole number from 1 to {most}", param="limit")
    order = given.get("order", "desc")
    if order not in {"asc", "desc"}:
        raise InvalidArgument("order must be asc or desc", param="order")
    purpose = given.get("purpose") or None
    return Page(after=after, limit=int(limit), oldest_first=order == "asc", purpose=purpose)


def listed(page: Page, ids: list[str], read: Callable[[str], dict[str, Any] | None]) -> dict[str, Any]:
    """Return a page of a list, as OpenAI's API writes it; ``read`` returns None for what is to be left out. Blocks."""
    data: list[dict[str, Any]] = []
    more = False
    for one in _wanted(page, ids):
        told = read(one)
        if told is None:
            continue
        if len(data) == page.limit:
            more = True
            break
        data.append(told)
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}


def _wanted(page: Page, ids: list[str]) -> Iterator[str]:
    """Yield ids in order from where the page begins; ids are sorted, so what it begins after may be gone."""
    if page.oldest_first:
        return (one for one in ids if page.after is None or one > page.after)
    return (one for one in reversed(ids) if page.after is None or one < page.after)
