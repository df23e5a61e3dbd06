"""Read multipart forms, for uploads that go to disk as they come and for bodies that are there as a whole."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from trunnion.errors import InvalidArgument, UnsupportedFeature

_LONGEST_NAME: Final = 512
_LONGEST_SHOWN: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class FormShape:
    """Say what a form may hold.

    Attributes:
        fields: The names of its fields; the file's is ``file``.
        longest: Most bytes of a field.
        largest: Most bytes of the file; None for no limit of its own.
        too_large: Makes the error for a larger one.
        refused: Names that are known, lists under them included, and what to do instead.
        others: Skip fields of other names, and the file's bytes: whoever reads the form next will look at them.
    """

    fields: tuple[str, ...]
    longest: int = 1024
    largest: int | None = None
    too_large: Callable[[int], InvalidArgument] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    others: bool = False


def form_boundary(content_type: bytes) -> bytes | None:
    """Return the boundary that a ``Content-Type`` names; None if it is not that of a form."""
    kind, options = parse_options_header(content_type.decode("latin-1"))
    return (options.get(b"boundary") or None) if kind == b"multipart/form-data" else None


class Form:
    """Parse a form: hold its fields, and the file's bytes until they are taken.

    Attributes:
        filename: What the client calls the file; None while none has begun.
        held: Bytes of the file that are held.
    """

    def __init__(self, boundary: bytes, shape: FormShape) -> None:
        """Raises :class:`InvalidArgument` for a boundary that is none."""
        self.filename: str | None = None
        self.held = 0
        self._shape = shape
        self._values: dict[str, bytes] = {}
        self._pieces: list[bytes] = []
        self._size = 0
        self._whole = False
        self._header = self._value = self._disposition = b""
        self._name = ""
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._on_data,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _unreadable(error) from error

    def feed(self, data: bytes) -> None:
        """Read on. Raises :class:`InvalidArgument` for what is no form, or not one of this shape."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _unreadable(error) from error

    def take(self) -> bytes:
        """Return the bytes of the file that are held, and hold them no more."""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self.held = [], 0
        return data

    @property
    def fields(self) -> dict[str, str]:
        """Return the fields beside the file."""
        return {name: value.decode("utf-8", "replace") for name, value in self._values.items()}

    def check_whole(self) -> None:
        """Return if the form was read to its end. Raises :class:`InvalidArgument` otherwise."""
        if not self._whole:
            raise InvalidArgument("the form ends before its last boundary; was it cut short?")

    def named(self) -> str:
        """Return the file's name, once all was read. Raises :class:`InvalidArgument` if that was not all."""
        self.check_whole()
        if self.filename is None:
            raise InvalidArgument("missing required parameter: file", param="file")
        return self.filename

    def _begin_part(self) -> None:
        self._disposition = b""

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _end_headers(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise InvalidArgument("each part of the form needs `Content-Disposition: form-data; name=...`")
        self._name = name.decode("utf-8", "replace")[:_LONGEST_SHOWN]
        if self._name not in self._shape.fields:
            if self._shape.others:
                return
            raise self._unknown()
        if self._name in self._values or (self._name == "file" and self.filename is not None):
            raise InvalidArgument(f"the form has {self._name} twice; send it once", param=self._name)
        given = options.get(b"filename")
        if self._name != "file":
            self._values[self._name] = b""
        elif given is None:
            raise InvalidArgument("file must be a file, with a filename; this is a plain field", param="file")
        else:
            self.filename = given.decode("utf-8", "replace")[:_LONGEST_NAME]

    def _unknown(self) -> InvalidArgument:
        why = self._shape.refused.get(self._name.partition("[")[0])
        if why is not None:
            return UnsupportedFeature(f"{self._name}: {why}", param=self._name)
        known = self._shape.fields
        near = difflib.get_close_matches(self._name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        return InvalidArgument(f"unrecognized request argument: {self._name!r}; {hint}", param=self._name)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == "file" and "file" in self._shape.fields:
            self._size += end - start
            most = self._shape.largest
            if most is not None and self._size > most:
                assert self._shape.too_large is not None, "a limit has its error"
                raise self._shape.too_large(most)
            self.held += end - start
            self._pieces.append(data[start:end])
        elif self._name in self._values:
            value = self._values[self._name] + data[start:end]
            if len(value) > self._shape.longest:
                raise InvalidArgument(f"{self._name} is longer than {self._shape.longest} bytes", param=self._name)
            self._values[self._name] = value

    def _end(self) -> None:
        self._whole = True


def _unreadable(error: FormParserError) -> InvalidArgument:
    return InvalidArgument(f"the form cannot be read: {error}")
