"""Send each row to the model it names, where a job has several."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from trunnion.errors import AdapterNotFound, ConfigError, TrunnionError

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

    def told(self, error: TrunnionError, base_models: Collection[str] = ()) -> TrunnionError:
        """Return the error of a row; that of an adapter which is not there names the job's models as well."""
        known = [*sorted(base_models), *self.names]
        if not isinstance(error, AdapterNotFound) or not known:
            return error
        rest = ", or an adapter as `model:adapter`" if self.names else ", or an adapter of it"
        message = f"{error.message}; a row may name a model of this job ({', '.join(known)}){rest}"
        return TrunnionError.from_dict({**error.to_dict(), "message": message})


def routes(names: Sequence[str], column: str) -> Routes:
    """Return the routes of a job; ``column`` names the rows' models.

    Raises:
        ConfigError: A name cannot be one, or rows cannot name any.
    """
    if names and not column:
        raise ConfigError("rows cannot name one of several models: the column `model` is switched off", param="models")
    return Routes(tuple(names))
