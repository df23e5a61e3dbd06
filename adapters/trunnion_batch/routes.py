"""Send each row to the model it names, where a job has several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trunnion.errors import ConfigError

_ADAPTER = ":"


@dataclass(frozen=True, slots=True)
class Routes:
    """Hold the names of a job's further models. Place 0 is the job's own model, which takes all other rows.

    Raises:
        ConfigError: A name is empty or has a colon, which parts a model from its adapter.
    """

    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the names."""
        for name in self.names:
            if not name or _ADAPTER in name:
                message = f"{name!r} cannot name a model: it must have letters, and no {_ADAPTER!r} (`model:adapter`)"
                raise ConfigError(message, param=f"models.{name}")

    def of(self, value: Any) -> tuple[int, Any]:
        """Return the place of the model that a row's ``model`` names, and what is left for that model: its adapter.

        ``judge`` is the model ``judge``; ``judge:strict`` its adapter ``strict``.
        """
        if isinstance(value, str):
            name, _, adapter = value.partition(_ADAPTER)
            if name in self.names:
                return self.names.index(name) + 1, adapter or None
        return 0, value


def routes(names: Sequence[str], column: str) -> Routes:
    """Return the routes of a job; ``column`` names the rows' models.

    Raises:
        ConfigError: A name cannot be one, or rows cannot name any.
    """
    if names and not column:
        raise ConfigError("rows cannot name one of several models: the column `model` is switched off", param="models")
    return Routes(tuple(names))
