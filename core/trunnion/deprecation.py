"""Mark what will go with the next major plugin API, so that plugins hear of it while it still works.

Nothing of the plugin API is taken away within a major version. What is to go warns from the minor version that
deprecates it until the next major one, in three places::

    @hookspec(warn_on_impl=deprecated("hook trunnion_old", since=(1, 4), instead="implement trunnion_new"))
    @hookspec(warn_on_impl_args={"old": deprecated("argument old", since=(1, 4), instead="take new")})
    old: str = field(default="", metadata=deprecated_field("old", since=(1, 4), instead="set new"))

pluggy gives the first two when a plugin registers, at the function that implements the hook; the loader gives the
third for a plugin value whose field is not at its default. A plugin's record keeps the sentences of all three
(``trunnion plugins doctor`` prints them), since Python shows such warnings to tests and hides them from users.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, Final

_KEY: Final = "trunnion_deprecated"


class TrunnionDeprecationWarning(DeprecationWarning):
    """Warn of something of Trunnion's that will go. Filters on this class reach all of them."""


class PluginApiDeprecated(TrunnionDeprecationWarning):
    """Warn a plugin of something that the next major plugin API will not have."""


def deprecated(what: str, *, since: tuple[int, int], instead: str) -> PluginApiDeprecated:
    """Return the warning for a part of the plugin API.

    Args:
        what: The part, such as "hook trunnion_old".
        since: The plugin API that deprecated it, ``(major, minor)``; it goes with the next major one.
        instead: What to do, beginning with a verb: "implement trunnion_new".
    """
    major, minor = since
    return PluginApiDeprecated(
        f"{what} is deprecated since plugin API {major}.{minor} and goes with {major + 1}.0; {instead}"
    )


def deprecated_field(name: str, *, since: tuple[int, int], instead: str) -> Mapping[str, PluginApiDeprecated]:
    """Return the metadata of a deprecated dataclass field, for :func:`dataclasses.field`."""
    return {_KEY: deprecated(f"field {name!r}", since=since, instead=instead)}


def deprecations_of(value: Any) -> Iterator[PluginApiDeprecated]:
    """Yield the warning of each deprecated field of a dataclass value that is not at its default."""
    for field in fields(value):
        if _KEY in field.metadata and getattr(value, field.name) != _default(field):
            yield field.metadata[_KEY]


def _default(field: Field[Any]) -> object:
    return field.default_factory() if field.default_factory is not MISSING else field.default
