"""Read ``SHA256SUMS``, as ``sha256sum`` writes it: the list of a model's files on a web server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from trunnion.errors import InvalidArgument

from .folder import check_inside

FILE: Final = "SHA256SUMS"
_LINE: Final = re.compile(r"([0-9a-fA-F]{64}) [ *](.+)")


def parse_sums(text: str, where: str) -> Mapping[str, str]:
    """Return the digest of each file by its path.

    Raises:
        InvalidArgument: A line is no sum, or a path leads out of the folder.
    """
    sums: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InvalidArgument(f"{where}: line {number} is not what sha256sum writes", param="model")
        path = match[2].removeprefix("./")
        check_inside(path, where)
        if path != FILE:
            sums[path] = match[1].lower()
    if not sums:
        raise InvalidArgument(f"{where} lists no file", param="model")
    return sums
