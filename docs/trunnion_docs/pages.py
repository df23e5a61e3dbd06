"""Fill in what is made while the site is built: too long to keep in the repository, and read nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from .commands import commands
from .settings import settings

_IN_A_CLONE: Final = re.compile(r"<!-- in a clone -->\n.*?<!-- /in a clone -->\n+", re.DOTALL)
_PLACE: Final = re.compile(r"<!-- fill (?P<name>[\w-]+) -->")


def filled(page: str) -> str:
    """Return a page with every place filled in, and without what it says to readers of a clone in their stead.

    Raises:
        KeyError: Nothing fills a place.
    """
    return _PLACE.sub(lambda place: FILLERS[place["name"]]().strip(), _IN_A_CLONE.sub("", page))


FILLERS: Final[Mapping[str, Callable[[], str]]] = {"commands": commands, "settings": settings}
