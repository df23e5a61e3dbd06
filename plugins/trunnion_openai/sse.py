"""Split a stream of bytes into server-sent events, whatever the pieces it arrives in.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html. The common case, whole events of one data line
that end with two line feeds, costs one split; the rest of the format is read as it is specified.
"""

from __future__ import annotations

from typing import Final

from trunnion.errors import InternalError

_DATA: Final = b"data: "
_BOM: Final = b"\xef\xbb\xbf"


class ErrorData(bytes):
    """Hold the data of an event that calls itself an error."""

    __slots__ = ()


class EventSplitter:
    """Take bytes, give the data of the events that are complete. Not shared."""

    __slots__ = ("_limit", "_pieces", "_size", "_start")

    def __init__(self, limit: int) -> None:
        """Hold at most ``limit`` bytes of an event that is not complete."""
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of each event that the chunk completes; an event without data gives nothing.

        Raises:
            InternalError: An event exceeds the limit.
        """
        if self._pieces or self._start:
            if b"\n" not in chunk and b"\r" not in chunk:  # no event can end here: do not search what was searched
                self._keep(chunk)
                return []
            chunk = self._joined(chunk)
        if b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        head, _, rest = chunk.rpartition(b"\n\n")
        if rest:
            self._keep(rest)
        if not head:
            return []
        datas = []
        for event in head.split(b"\n\n"):
            data = event[6:] if event.startswith(_DATA) and b"\n" not in event else _parse(event)
            if data:
                datas.append(data)
        return datas

    def rest(self) -> bytes | None:
        """Return the data of what came last if the stream ended without the blank line that ends an event."""
        text = self._joined(b"")
        return _parse(text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n"))

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._size += len(piece)
        if self._size > self._limit:
            raise InternalError(
                f"the endpoint sent an event of more than {self._limit} bytes; raise max_event_bytes if that is right"
            )

    def _joined(self, chunk: bytes) -> bytes:
        if self._pieces:
            self._pieces.append(chunk)
            chunk = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
        if self._start and len(chunk) >= len(_BOM):
            self._start = False
            chunk = chunk.removeprefix(_BOM)
        return chunk

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        """Return the chunk with every line end a line feed; a carriage return at its end may be half of one."""
        held = b""
        if chunk.endswith(b"\r"):
            chunk, held = chunk[:-1], b"\r"
        chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not held:
            return chunk
        head, end, rest = chunk.rpartition(b"\n\n")
        self._keep(rest + held)
        return head + end


def _parse(event: bytes) -> bytes | None:
    """Return the data of one event's lines: comments, ids and unknown fields are passed over."""
    lines: list[bytes] = []
    error = False
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            lines.append(value)
        elif name == b"event":
            error = value == b"error"
    if not lines:
        return None
    data = b"\n".join(lines)
    return ErrorData(data) if error else data
