"""Write the repository of a new plugin: from templates, in one go, over nothing that is there."""

from __future__ import annotations

import importlib.resources
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Final, Literal

import trunnion
from trunnion import PluginState, Registry
from trunnion.errors import ConfigError
from trunnion.loader import normalize

Kind = Literal["engine", "stage", "router", "hooks"]

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*")
_LONGEST: Final = 30
_SUFFIX: Final = ".in"
_DESCRIPTIONS: Final[dict[str, str]] = {
    "engine": "Mounts an engine in Trunnion.",
    "stage": "Adds a stage to Trunnion's pipelines.",
    "router": "Routes requests among the replicas of Trunnion's models.",
    "hooks": "Adds policy around Trunnion's engines.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginNames:
    """Hold what a new plugin is called: by its users, on a package index, in Python."""

    name: str
    distribution: str
    package: str
    class_prefix: str

    @classmethod
    def of(cls, given: str) -> PluginNames:
        """Derive the names from the one that was given: ``My-Engine`` becomes ``my_engine``.

        Raises:
            ConfigError: Nothing that Python and package indexes accept can be made of it.
        """
        plain = given.strip().lower()
        for prefix in ("trunnion-", "trunnion_"):
            plain = plain.removeprefix(prefix)
        if not _NAME.fullmatch(plain) or len(plain) > _LONGEST:
            raise ConfigError(
                f"{given!r} is no name for a plugin; it begins with a letter, goes on with letters and digits "
                f"(parted by single -, _ or .), and has at most {_LONGEST} characters, such as foo or my-engine",
                param="name",
            )
        words = re.split("[-_.]", plain)
        return cls(
            name="_".join(words),
            distribution="-".join(["trunnion", *words]),
            package="_".join(["trunnion", *words]),
            class_prefix="".join(map(str.capitalize, words)),
        )


def check_free(names: PluginNames, kind: Kind, registry: Registry) -> None:
    """Refuse names that an installed plugin has already.

    Raises:
        ConfigError: It would be in conflict with what is installed; the message says with what.
    """
    for record in registry.plugins():
        by = f"{record.distribution} {record.version}".strip() or record.module
        if record.kind == kind and record.name == names.name and record.state is not PluginState.BLOCKED:
            raise ConfigError(f"there is {_a(kind)} {names.name!r} already, of {by}; choose another name", param="name")
        if normalize(record.entry_point) == normalize(names.name):
            raise ConfigError(f"the entry point {names.name!r} is taken by {by}; choose another name", param="name")
        if normalize(record.distribution) == normalize(names.distribution):
            raise ConfigError(f"{by} is installed already; choose another name", param="name")
    if importlib.util.find_spec(names.package) is not None:
        raise ConfigError(f"a package {names.package} is installed already; choose another name", param="name")


def _a(kind: Kind) -> str:
    return {"engine": "an engine", "hooks": "hooks called"}.get(kind, f"a {kind}")


def write_plugin(names: PluginNames, kind: Kind, folder: Path) -> list[Path]:
    """Write the repository into a folder that is empty or not there; return its files, relative to the folder.

    Raises:
        ConfigError: Something is there already. Nothing was written then.
        OSError: The folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "is not empty" if folder.is_dir() else "is no folder"
        raise ConfigError(f"{folder} {what}; name another folder with --output", param="output")
    texts = dict(_rendered(names, kind))
    for path, text in texts.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    return sorted(texts)


def _rendered(names: PluginNames, kind: Kind) -> Iterator[tuple[Path, str]]:
    templates = importlib.resources.files("trunnion_cli") / "templates"
    tokens = {
        "NAME": names.name,
        "DISTRIBUTION": names.distribution,
        "PACKAGE": names.package,
        "CLASS": names.class_prefix,
        "DESCRIPTION": _DESCRIPTIONS[kind],
        "VERSION": ".".join(trunnion.__version__.split(".")[:2]),
        "API": str(trunnion.API_VERSION),
    }
    tokens["BODY"] = _filled((templates / kind / "README.body.in").read_text(encoding="utf-8"), tokens).rstrip()
    for source in ("common", kind):
        for parts, file in _files(templates / source):
            if parts[-1] != "README.body.in":
                yield _place(parts, names), _filled(file.read_text(encoding="utf-8"), tokens)


def _filled(text: str, tokens: dict[str, str]) -> str:
    return re.sub("%([A-Z]+)%", lambda match: tokens[match.group(1)], text)


def _files(folder: Traversable, *above: str) -> Iterator[tuple[tuple[str, ...], Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _files(entry, *above, entry.name)
        elif entry.name.endswith(_SUFFIX):
            yield (*above, entry.name), entry


def _place(parts: tuple[str, ...], names: PluginNames) -> Path:
    """Return where a template goes: ``dot-`` stands for a leading dot, PACKAGE and NAME for the plugin's."""
    path = "/".join(parts).removesuffix(_SUFFIX)
    path = path.replace("PACKAGE", names.package).replace("NAME", names.name)
    return Path(re.sub(r"(^|/)dot-", r"\1.", path))
