"""Feed text to transducers in pieces."""

from __future__ import annotations

import itertools

from trunnion.events import ChoiceDelta, GenerateEvent, ToolCallDelta


def cut(text, cuts):
    """Cut text (or a list) at places given by any integers; at least one piece, perhaps an empty one."""
    places = [0, *sorted({place % (len(text) + 1) for place in cuts} - {0, len(text)}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(places)]


def run(transducer, pieces, *, reason="stop", index=0):
    """Feed the pieces and the finish reason, and return all deltas."""
    deltas = []
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        delta = ChoiceDelta(index=index, text=piece, finish_reason=reason if last else None)
        for event in transducer.feed(GenerateEvent(choices=(delta,))):
            deltas.extend(event.choices)
        if transducer.done:
            break
    for event in transducer.finish():
        deltas.extend(event.choices)
    return deltas


def text_of(deltas):
    return "".join(delta.text for delta in deltas)


def calls_of(deltas):
    """Join the pieces of each call: [(name, arguments)]; the first piece has id and name, the others neither."""
    calls = {}
    for delta in deltas:
        for piece in delta.tool_calls:
            assert isinstance(piece, ToolCallDelta)
            if piece.index not in calls:
                assert piece.index == len(calls)
                assert len(piece.id) == len("call_") + 24
                calls[piece.index] = [piece.name, ""]
            else:
                assert piece.id is None
                assert piece.name is None
            calls[piece.index][1] += piece.arguments
    return [tuple(call) for call in calls.values()]


def finish_of(deltas):
    (found,) = [delta for delta in deltas if delta.finish_reason is not None]
    assert found is deltas[-1]
    return found.finish_reason, found.stop_reason
