"""Our attention gives what attending over a whole step with a mask gives, for every way that requests lie in one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trunnion_transformers.attention import attend, lay_out

SIZE = 8
TRASH = 0
"""Row of the cache that holds no token; what is in it must not matter."""


def step(lengths, *, heads, key_heads, at_hand=False, seed=0):
    """Return a step's tensors, requests given as (queries, keys), and what its queries should see."""
    random = torch.Generator().manual_seed(seed)
    queries = sum(count for count, _ in lengths)
    total = sum(count for _, count in lengths)
    cache = torch.randn(2, total + 1, key_heads, SIZE, generator=random, dtype=torch.float64)
    cache[:, TRASH] = 1e6
    read = 1 + torch.randperm(total, generator=random)
    query = torch.randn(1, heads, queries, SIZE, generator=random, dtype=torch.float64)
    starts = [torch.tensor([0, *counts]).cumsum(0).int() for counts in zip(*lengths, strict=True)]
    keys, values = cache[:, read]
    layout = lay_out(
        torch.empty(0, dtype=torch.long) if at_hand else read,
        *starts,
        longest_query=max(count for count, _ in lengths),
        longest=max(count for _, count in lengths),
        padding=TRASH,
    )
    if not at_hand:
        keys, values = cache[:, layout.read]
    return query, keys, values, layout, expected(query, *cache[:, read], lengths)


def expected(query, keys, values, lengths):
    """Multiply every query with every key of the step, and mask what a request must not see."""
    mask = torch.zeros(query.shape[2], keys.shape[0], dtype=torch.bool)
    row = column = 0
    for queries, count in lengths:
        for index in range(queries):
            mask[row + index, column : column + count - queries + index + 1] = True
        row, column = row + queries, column + count
    share = query.shape[1] // keys.shape[1]
    keys, values = (x.repeat_interleave(share, 1).transpose(0, 1) for x in (keys, values))
    scores = (query[0] @ keys.transpose(1, 2) / 3).masked_fill(~mask, -torch.inf)
    return (scores.softmax(-1) @ values).transpose(0, 1)[None]


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize(
    ("lengths", "padded"),
    [
        ([(1, 5), (1, 5), (1, 5)], True),
        ([(1, 5), (1, 3), (1, 4)], True),
        ([(1, 40), (1, 1), (1, 2), (1, 1)], False),
        ([(1, 7)], True),
        ([(4, 4), (2, 9), (1, 6)], False),
    ],
    ids=["one length", "nearly one length", "one much longer", "alone", "prefill, chunk and decode"],
)
def test_requests_see_themselves_and_what_came_before(lengths, padded, heads, key_heads):
    query, keys, values, layout, wanted = step(lengths, heads=heads, key_heads=key_heads)
    assert bool(layout.width) is padded
    torch.testing.assert_close(attend(query, keys, values, layout, 1 / 3), wanted)


def test_whole_prompts_need_no_cache():
    query, keys, values, layout, wanted = step([(3, 3), (5, 5), (1, 1)], heads=4, key_heads=2, at_hand=True)
    torch.testing.assert_close(attend(query, keys, values, layout, 1 / 3), wanted)


def test_prompts_of_one_token_need_no_cache():
    query, keys, values, layout, wanted = step([(1, 1), (1, 1)], heads=4, key_heads=2, at_hand=True)
    torch.testing.assert_close(attend(query, keys, values, layout, 1 / 3), wanted)


@settings(deadline=None, max_examples=60)
@given(
    requests=st.lists(st.tuples(st.integers(1, 6), st.integers(0, 30)), min_size=1, max_size=8),
    decoding=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_step(requests, decoding, seed):
    lengths = [(1 if decoding else queries, (1 if decoding else queries) + before) for queries, before in requests]
    query, keys, values, layout, wanted = step(lengths, heads=4, key_heads=2, seed=seed)
    torch.testing.assert_close(attend(query, keys, values, layout, 1 / 3), wanted)
