"""Let errors call fields as the client did, where a wire format has other names than the core."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from trunnion.errors import TrunnionError


@contextmanager
def client_names(names: Mapping[str, str]) -> Iterator[None]:
    """Rename what errors name, in ``param`` and in the message; ``names`` is read when an error passes.

    Args:
        names: The core's name of a field, or the place of a part (``messages[1].content[0]``), and the client's. What
            lies below a name (``messages[1].role``) is renamed with it.
    """
    try:
        yield
    except TrunnionError as error:
        _rename(error, names)
        raise


def _rename(error: TrunnionError, names: Mapping[str, str]) -> None:
    param = error.param
    if param is None:
        return
    for core in sorted(names, key=len, reverse=True):
        if param == core or param.startswith((f"{core}.", f"{core}[")):
            error.param = names[core] + param[len(core) :]
            error.message = names[core].join(re.split(rf"(?<!\w){re.escape(core)}(?!\w)", error.message))
            return
