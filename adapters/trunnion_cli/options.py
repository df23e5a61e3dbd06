"""Define the options that ``run``, ``serve`` and ``chat`` share, and turn them into an engine's spec."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .assignments import parse_assignments
from .console import say, set_up_logging
from .state import STATE

if TYPE_CHECKING:
    from trunnion import EnginePlugin, EngineSpec, MediaPolicy, Registry
    from trunnion.adapter_setting import LoraSettings
    from trunnion.pooling import Task
    from trunnion_http import HTTPSettings

Engine = Annotated[
    str | None,
    typer.Option("--engine", "-e", metavar="NAME", help="Engine plugin; if left out, the one that suits best."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Setting of the engine, repeatable; see `trunnion plugins schema ENGINE`. Dots nest, values are JSON.",
    ),
]
Adapters = Annotated[
    list[str] | None, typer.Option("--adapter", metavar="NAME=PATH", help="LoRA adapter to load, repeatable.")
]
Sampling = Annotated[
    list[str] | None,
    typer.Option("--sampling", metavar="KEY=VALUE", help="Sampling parameter, such as max_tokens=64; repeatable."),
]

Hooks = Annotated[
    list[str] | None,
    typer.Option(
        "--hook",
        metavar="NAME.KEY=VALUE",
        help="Setting of request hooks, repeatable; see `trunnion plugins schema NAME --kind hooks`.",
    ),
]

Media = Annotated[
    list[str] | None,
    typer.Option(
        "--media",
        metavar="KEY=VALUE",
        help="Limit of images and other media, repeatable, such as allowed_hosts=example.com: by default nothing is "
        "fetched from URLs.",
    ),
]


def _debug(value: bool) -> bool:  # noqa: FBT001 - typer's callback
    STATE.debug = STATE.debug or value
    return value


def _verbose(value: bool) -> bool:  # noqa: FBT001 - typer's callback
    STATE.verbose = STATE.verbose or value
    return value


Debug = Annotated[bool, typer.Option("--debug", callback=_debug, help="Show tracebacks.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", callback=_verbose, help="Log what the engine does.")]


def registry() -> Registry:
    """Return this process's registry."""
    from trunnion import get_registry

    return get_registry()


def check_policy_names() -> None:
    """Say so, with the nearest name, if one given to --allow-plugin or --block-plugin fits nothing."""
    from trunnion.loader import normalize

    given = {name for _, name in STATE.policy_names}

    def elsewhere(record: logging.LogRecord) -> bool:  # the note says the same, with the flag
        told = record.args if isinstance(record.args, tuple) else ()
        return not (str(record.msg).startswith("plugins to ") and given.intersection(map(str, told)))

    logging.getLogger("trunnion.registry").addFilter(elsewhere)
    found = registry()
    names = sorted({name for record in found.plugins() for name in (record.entry_point, record.distribution) if name})
    known = set(map(normalize, names))
    for flag, name in STATE.policy_names:
        if normalize(name) not in known:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            say(f"note: {flag} {name}: no installed plugin or distribution has that name{hint}")
    STATE.policy_names.clear()


def check_model(engine: EnginePlugin, model: str | None) -> str | None:
    """Return the model; refuse a missing path before an engine spends its start-up time on it.

    Raises:
        ModelNotFound: It looks like a path, and nothing is there.
    """
    if model is None or set(engine.hardware) == {"remote"} or "://" in model:  # a source knows what is there
        return model
    looks_like_path = model.startswith(("/", "./", "../", "~", ".")) or model.count("/") > 1 or model.endswith("/")
    if looks_like_path and not Path(model).expanduser().exists():
        from trunnion.errors import ModelNotFound

        raise ModelNotFound(f"no model at {model}: the path does not exist", param="model")
    return os.path.expanduser(model) if model.startswith("~") else model  # noqa: PTH111 - keeps "./model" as it is


def build_spec(
    engine: str | None,
    model: str | None,
    settings: list[str] | None,
    adapters: list[str] | None = None,
    *,
    batch: bool = False,
) -> EngineSpec:
    """Turn the shared options into a validated spec, and set logging up.

    Raises:
        TrunnionError: The engine, the model, a setting or an adapter is not what it must be.
    """
    return make_spec(
        engine, model, parse_assignments("--set", settings or ()), adapter_paths(adapters or ()), batch=batch
    )


def make_spec(
    engine: str | None,
    model: str | None,
    config: Mapping[str, Any],
    named: Mapping[str, str],
    *,
    lora: LoraSettings | None = None,
    batch: bool = False,
    task: Task = "generate",
) -> EngineSpec:
    """Return a validated spec, of the engine that suits best if none is named, and set logging up.

    Raises:
        TrunnionError: The engine, the model, a setting or an adapter is not what it must be.
    """
    from trunnion import choose_engine
    from trunnion.choice import AUTO
    from trunnion.pooling import check_task, needs_of

    set_up_logging()
    found = registry()
    if engine in (None, AUTO):
        needs = [*needs_of(task), *(["hot_adapters/1"] if lora is not None and lora.in_use else ())]
        choice = choose_engine(model, config, adapters=named, needs=needs, registry=found)
        say(f"engine {choice.engine}: {choice.reason} (`trunnion engines MODEL` says more)")
        engine = choice.engine
    plugin = found.engine(engine)
    check_task(task, plugin.name, plugin.capabilities)
    path = check_model(plugin, model)
    return found.engine_spec(plugin.name, path, config, adapters=named, lora=lora, batch=batch)


def hook_settings(pairs: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """Turn ``--hook`` into the settings of hooks, by name.

    Raises:
        typer.BadParameter: A pair names no setting.
        TrunnionError: No such hooks, or one of their settings is not what it must be.
    """
    return check_hook_settings(parse_assignments("--hook", pairs or ()))


def check_hook_settings(made: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return settings of hooks after they were checked; raises as :func:`hook_settings`."""
    for name, settings in made.items():
        if not isinstance(settings, dict):
            raise typer.BadParameter(f"--hook takes NAME.KEY=VALUE, not {name}={settings}")
    registry().check_hooks(made)
    return made


def media_policy(pairs: Sequence[str] | None) -> MediaPolicy:
    """Turn ``--media`` into a policy. Raises typer.BadParameter for what is no setting of it."""
    from pydantic import ValidationError

    from trunnion import MediaPolicy
    from trunnion.registry import plain_message

    try:
        return MediaPolicy(**parse_assignments("--media", pairs or ()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise typer.BadParameter(f"--media {where}: {plain_message(first['msg'])}") from error


def adapter_paths(pairs: Sequence[str]) -> dict[str, str]:
    """Turn ``--adapter`` into paths by name. Raises typer.BadParameter for a pair without a name."""
    named = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not name:
            raise typer.BadParameter(f"--adapter takes NAME=PATH, not {pair!r}")
        named[name] = path
    return named


def http_settings(pairs: Sequence[str] | None, named: Mapping[str, Any]) -> HTTPSettings:
    """Turn ``--http`` and the flags of single settings into the HTTP surface's settings.

    Raises:
        typer.BadParameter: A setting is given twice.
        ConfigError: No such setting, or a value that it does not take.
    """
    from trunnion.registry import validate_config
    from trunnion_http import HTTPSettings

    given = parse_assignments("--http", pairs or ())
    flags = {name: value for name, value in named.items() if value is not None}
    if twice := sorted(given.keys() & flags.keys()):
        raise typer.BadParameter(f"{twice[0]} is given twice, by --http and by a flag of its own; keep one")
    made = validate_config(HTTPSettings, {**flags, **given}, where="--http")
    assert isinstance(made, HTTPSettings)
    return made


def lora_settings(folders: Sequence[str] | None, max_loras: int | None) -> LoraSettings:
    """Turn ``--adapter-folder`` and ``--max-loras`` into settings that hold in any working directory.

    Raises:
        ConfigError: A folder is not there.
    """
    from trunnion.adapter_folders import AdapterFolders
    from trunnion.adapter_setting import LoraSettings

    AdapterFolders(folders or ())
    return LoraSettings(folders=tuple(map(absolute, folders or ())), max_loras=max_loras)


def absolute(path: str) -> str:
    """Return a path as it is in any working directory; a URI as it is."""
    return path if "://" in path else str(Path(path).expanduser().absolute())
