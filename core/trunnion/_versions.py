"""Compare library versions by their release numbers; enough for the ranges plugins declare."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re

from .plugin import API_VERSION, LibraryRequirement


def release(version: str) -> tuple[int, ...]:
    """Return the leading release numbers without trailing zeros: ``"0.29.0+cpu"`` gives ``(0, 29)``."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(part) for part in re.sub(r"(\.0+)+$", "", match[1]).split(".")) if match else ()


def series(version: str) -> tuple[int, ...]:
    """Return the part that changes when compatibility breaks: the major number, before 1.0 the minor as well."""
    numbers = (*release(version), 0, 0)
    return numbers[:1] if numbers[0] else numbers[:2]


def installed(requirement: LibraryRequirement) -> tuple[str, str] | None:
    """Return name and version of the distribution that provides the library, without importing it."""
    for name in requirement.distributions:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if importlib.util.find_spec(requirement.module) is not None:
        return requirement.module, ""  # importable without metadata: a source checkout
    return None


def missing(requirement: LibraryRequirement) -> str | None:
    """Return why the library is not there, or None if it is."""
    if installed(requirement) is not None:
        return None
    how = f"; install it: {requirement.install}" if requirement.install else ""
    return f"needs {requirement.module}, which is not installed{how}"


def out_of_range(requirement: LibraryRequirement) -> str | None:
    """Return why the installed version does not fit, or None if it does."""
    found = installed(requirement)
    if found is None or not found[1]:
        return None
    name, version = found
    have = release(version)
    low, high = requirement.minimum, requirement.below
    if (low and have < release(low)) or (high and have >= release(high)):
        wanted = ", ".join(part for part in (f">={low}" if low else "", f"<{high}" if high else "") if part)
        return f"needs {requirement.module} {wanted}, found {name} {version}"
    return None


def api_mismatch(version: tuple[int, int]) -> str | None:
    """Return why a plugin built for ``version`` of the plugin API cannot run here, or None if it can."""
    if version[0] == API_VERSION[0] and version[1] <= API_VERSION[1]:
        return None
    theirs, ours = (".".join(map(str, v)) for v in (version, API_VERSION))
    advice = "upgrade trunnion" if version > API_VERSION else "upgrade the plugin"
    return f"written for plugin API {theirs}, this is {ours}; {advice}"


def perhaps_newer(error: BaseException) -> str:
    """Return a hint for a plugin that uses a name or a field this version does not have, or an empty string."""
    name = isinstance(error, ImportError) and (error.name or "").partition(".")[0] == "trunnion"
    field = isinstance(error, TypeError) and "Plugin.__init__() got an unexpected keyword argument" in str(error)
    if not name and not field:
        return ""
    here = ".".join(map(str, API_VERSION))
    return f"; this is plugin API {here}: if the plugin was written for a later one, upgrade trunnion"
