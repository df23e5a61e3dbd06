"""Make the local paths of a config file absolute: replicas have a working directory of their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_HTTP_FILES: Final = ("api_keys_file", "admin_keys_file")


def with_absolute_paths(data: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a file says, with the paths of models, adapters and keys that lie beside the file made absolute.

    What is not found there is left alone: it may be a name on the Hub, or lie on the cluster's nodes.
    """
    applications = data["applications"]
    if not isinstance(applications, list):
        return dict(data)
    return {**data, "applications": [_application(one, folder) for one in applications]}


def _application(given: Any, folder: Path) -> Any:
    args = given.get("args") if isinstance(given, dict) else None
    if not isinstance(args, dict):
        return given
    changed = dict(args)
    if isinstance(args.get("models"), list):
        changed["models"] = [_model(one, folder) for one in args["models"]]
    if isinstance(args.get("http"), dict):
        changed["http"] = _with(args["http"], {name: _found(args["http"].get(name), folder) for name in _HTTP_FILES})
    return {**given, "args": changed}


def _model(given: Any, folder: Path) -> Any:
    if not isinstance(given, dict):
        return given
    changes = {"model": _found(given.get("model"), folder)}
    if isinstance(given.get("adapters"), dict):
        changes["adapters"] = {name: _found(path, folder) for name, path in given["adapters"].items()}
    lora = given.get("lora")
    if isinstance(lora, dict) and isinstance(lora.get("folders"), list):
        changes["lora"] = {**lora, "folders": [_found(path, folder) for path in lora["folders"]]}
    return _with(given, changes)


def _with(given: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, **{name: value for name, value in changes.items() if name in given}}


def _found(path: Any, folder: Path) -> Any:
    if not isinstance(path, str) or not path or "://" in path:
        return path
    place = folder / Path(path).expanduser()
    return str(place) if place.exists() else path
