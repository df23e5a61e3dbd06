"""Fill in what is made while the site is built: too long to keep in the repository, and read nowhere else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from .commands import commands
from .settings import settings

_PLACE: Final = re.compile(r"<!-- fill (?P<name>[\w-]+) -->")


def filled(page: str) -> str:
    """Return a page with every place filled in. Raises KeyError for a place that nothing fills."""
    return _PLACE.sub(lambda place: FILLERS[place["name"]]().strip(), page)


FILLERS: Final[Mapping[str, Callable[[], str]]] = {"commands": commands, "settings": settings}
