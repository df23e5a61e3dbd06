"""Say what to do about a plugin that cannot be used, by what is wrong with it. Nothing is imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from trunnion import PluginRecord


def advice(record: PluginRecord) -> str:
    """Return what to do about a plugin in another state than ok."""
    state = record.state.value
    distribution = record.distribution or "its distribution"
    if state == "not installed":
        wanted = [need.install for need in record.plugin.requires if need.install] if record.plugin else []
        return "; ".join(wanted) or "install the library it needs"
    if state == "failed":
        return _of_failure(record)
    return {
        "blocked": "unset TRUNNION_PLUGINS_BLOCK and TRUNNION_PLUGINS_ALLOW, or name it with --allow-plugin",
        "conflict": "uninstall all but one of them, or --block-plugin the distributions you do not want",
        "incompatible": f"install versions that fit: upgrade trunnion, {distribution} or the library named above",
    }[state]


def _of_failure(record: PluginRecord) -> str:
    error, folder = record.error, editable_folder(record.distribution)
    module = record.module.partition(":")[0]
    others = f"upgrade or uninstall {record.distribution or 'its distribution'}"
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{error.filename}, line {error.lineno}"
        return f"mend {place}" if folder else f"it is no Python of this version: {place}; {others}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        if missing_module(module):
            mend = f"name a module that exists in the entry point, in {folder}, and install it again"
            return mend if folder else f"its entry point names a module that does not exist; {others}"
        library = error.name.partition(".")[0]
        if library != module.partition(".")[0]:
            do = f"import {library} inside start(), and declare it with requires=[LibraryRequirement(...)]"
            return f"{do}, in {folder}" if folder else f"install {library}, or {others}; its author: {do}"
    where = f"run `python -c 'import {module}'` to see where"
    return f"{where}; mend it in {folder}" if folder else f"{where}; {others}"


def factory_fault(record: PluginRecord) -> str:
    """Return what is wrong with the factory of a plugin that can be used so far: "" if its module is there."""
    if record.plugin is None:
        return ""
    module = missing_module(record.plugin.factory.partition(":")[0])
    return f"its factory is {record.plugin.factory!r}, and there is no module {module}" if module else ""


def missing_module(name: str) -> str:
    """Return the first part of a dotted module name that does not exist, "" if all do; no package is imported."""
    first, *rest = name.split(".")
    try:
        found = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        found = None
    if found is None:
        return first
    so_far = first
    for part in rest:
        so_far += f".{part}"
        inside = found.submodule_search_locations
        found = None if inside is None else PathFinder.find_spec(so_far, list(inside))
        if found is None:
            return so_far
    return ""


def editable_folder(distribution: str) -> str:
    """Return the folder of a distribution that is installed with ``pip install -e``; "" of any other."""
    try:
        written = importlib.metadata.distribution(distribution).read_text("direct_url.json") if distribution else None
        told = json.loads(written or "{}")
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
    editable = told.get("dir_info", {}).get("editable", False)
    return unquote(urlsplit(str(told.get("url", ""))).path) if editable else ""
