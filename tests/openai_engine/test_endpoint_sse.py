"""Server-sent events arrive whole, however their bytes are cut."""

import itertools

import pytest

from trunnion.errors import InternalError
from trunnion_openai.sse import ErrorData, EventSplitter

STREAMS = {
    "plain": (b'data: {"a":1}\n\ndata: two\n\ndata: [DONE]\n\n', [b'{"a":1}', b"two", b"[DONE]"]),
    "crlf": (b'data: {"a":1}\r\n\r\ndata: two\r\n\r\n', [b'{"a":1}', b"two"]),
    "mixed": (b"data: a\r\n\ndata: b\n\r\ndata: c\n\n", [b"a", b"b", b"c"]),
    "comments": (b": ping\n\ndata: a\n\n: ping\r\n\r\n:\n\ndata: b\n\n", [b"a", b"b"]),
    "fields": (b"id: 7\nevent: message\nretry: 10\ndata: a\n\nid: 8\n\n", [b"a"]),
    "lines": (b"data: a\ndata: b\n\n", [b"a\nb"]),
    "no space": (b"data:a\n\ndata:  b\n\n", [b"a", b" b"]),
    "bom": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "empty": (b"data: \n\ndata\n\n\n\ndata: a\n\n", [b"a"]),
    "umlaut": ('data: {"a":"wörld\\n"}\n\n'.encode(), ['{"a":"wörld\\n"}'.encode()]),
}


def split(pieces, limit=1 << 20):
    splitter = EventSplitter(limit)
    return [data for piece in pieces for data in splitter.feed(piece)]


@pytest.mark.parametrize("name", STREAMS)
def test_whole(name):
    stream, wanted = STREAMS[name]
    assert split([stream]) == wanted


@pytest.mark.parametrize("name", STREAMS)
def test_cut_at_every_byte(name):
    stream, wanted = STREAMS[name]
    assert split([bytes([byte]) for byte in stream]) == wanted


@pytest.mark.parametrize("name", STREAMS)
def test_cut_at_any_two_places(name):
    stream, wanted = STREAMS[name]
    for first, second in itertools.combinations(range(len(stream) + 1), 2):
        assert split([stream[:first], stream[first:second], stream[second:]]) == wanted, (first, second)


def test_carriage_returns_alone():
    splitter = EventSplitter(1 << 20)
    assert splitter.feed(b"data: a\r\rdata: b\r\r") == [b"a"]  # the last one may be half of a line end
    assert splitter.feed(b"data: c\r") == [b"b"]
    assert splitter.rest() == b"c"


def test_an_end_without_a_blank_line():
    splitter = EventSplitter(1 << 20)
    assert splitter.feed(b"data: a\n\ndata: [DONE]") == [b"a"]
    assert splitter.rest() == b"[DONE]"
    assert EventSplitter(10).rest() is None


def test_an_error_event_is_told_apart():
    first, second = split([b'event: error\ndata: {"message":"x"}\n\ndata: a\n\n'])
    assert type(first) is ErrorData
    assert type(second) is bytes


def test_an_endless_event_is_given_up():
    with pytest.raises(InternalError, match="max_event_bytes"):
        split([b"data: ", *[b"x" * 1000] * 20], limit=10_000)
    assert split([b"data: x\n\n" * 5000], limit=10_000) == [b"x"] * 5000
