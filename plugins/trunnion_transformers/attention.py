"""Attend to each request of a step on its own.

The library's sdpa attention multiplies every query of a step with every key of it, and masks what belongs to another
request: its cost, and that of its mask, grows with the square of the requests. Here it grows with their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch.nn.functional import scaled_dot_product_attention as sdpa

_WASTE: Final = 2
"""Requests that decode are padded to the longest where that makes at most so many times as many keys of them."""


@dataclass(slots=True, kw_only=True)
class Layout:
    """Say where the requests of one step lie, which is the same for every layer of a kind.

    Attributes:
        read: Rows of the cache to read keys and values from, one request after the other; empty where all of them are
            new and at hand.
        width: Keys per request, where each has one query and was padded; 0 where they were not.
        mask: Keys that are none of the padding, shape (requests, 1, 1, width); None where there is no padding.
        parts: Per request, where it was not padded: its queries, its keys, and what a query may see of them (None for
            whatever :func:`attend` can tell by itself).
    """

    read: Any
    width: int = 0
    mask: Any = None
    parts: list[tuple[slice, slice, Any]]


def lay_out(read: Any, queries: Any, keys: Any, *, longest_query: int, longest: int, padding: int) -> Layout:
    """Return the layout of a step.

    Args:
        read: Rows of the cache, one request after the other.
        queries: Where each request's queries begin, and the end of the last one; shape (requests + 1).
        keys: The same of its keys, those of the queries being the last ones.
        longest_query: The most queries that a request has.
        longest: The most keys that a request has.
        padding: A row of the cache that may be read for nothing.
    """
    requests = queries.shape[0] - 1
    if longest_query == 1 and requests * longest <= _WASTE * read.shape[0]:
        return _padded(read, keys, requests, longest, padding)
    q, k = queries.tolist(), keys.tolist()
    parts = [
        (slice(q[i], q[i + 1]), slice(k[i], k[i + 1]), _seen(q[i + 1] - q[i], k[i + 1] - k[i], read.device))
        for i in range(requests)
    ]
    return Layout(read=read, parts=parts)


def _padded(read: Any, keys: Any, requests: int, longest: int, padding: int) -> Layout:
    if requests * longest == read.shape[0]:  # all are of one length
        return Layout(read=read, width=longest, parts=[])
    keys = keys.long()
    columns = torch.arange(longest, device=read.device)
    mask = columns < keys.diff()[:, None]
    places = (keys[:-1, None] + columns).clamp_(max=read.shape[0] - 1)
    rows = torch.where(mask, read[places], padding)
    return Layout(read=rows.view(-1), width=longest, mask=mask[:, None, None], parts=[])


def _seen(queries: int, keys: int, device: Any) -> Any:
    """Return the mask of a request that has computed some of its keys before, and not just its last one now."""
    if queries in (1, keys):
        return None
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril_(keys - queries)


def attend(query: Any, key: Any, value: Any, layout: Layout, scaling: float | None) -> Any:
    """Return what the heads of all queries see; shape (1, queries, heads, head size).

    Args:
        query: Shape (1, heads, queries, head size).
        key: What ``layout.read`` read, or the new keys where that is empty; shape (keys, key heads, head size).
        value: The same of the values.
        layout: Where the requests lie.
        scaling: What scores are multiplied with; None for the usual.
    """
    heads, key_heads, size = query.shape[1], key.shape[1], query.shape[3]
    if layout.width:
        # The heads that share a key head take the place of queries: nothing has to be repeated for them.
        grouped = query[0].transpose(0, 1).reshape(-1, key_heads, heads // key_heads, size)
        key, value = (x.view(-1, layout.width, key_heads, size).transpose(1, 2) for x in (key, value))
        return sdpa(grouped, key, value, attn_mask=layout.mask, scale=scaling).reshape(1, -1, heads, size)
    key, value = (x.transpose(0, 1)[None] for x in (key, value))
    seen = [
        sdpa(
            query[:, :, queries],
            key[:, :, keys],
            value[:, :, keys],
            attn_mask=mask,
            is_causal=mask is None and queries.stop - queries.start > 1,
            scale=scaling,
            enable_gqa=heads != key_heads,
        )
        for queries, keys, mask in layout.parts
    ]
    return torch.cat(seen, 2).transpose(1, 2)
