"""Define the options that ``run``, ``serve`` and ``chat`` share, and turn them into an engine's spec."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .assignments import parse_assignments
from .console import say, set_up_logging
from .state import STATE

if TYPE_CHECKING:
    from trunnion import EnginePlugin, EngineSpec, Registry

Engine = Annotated[
    str | None, typer.Option("--engine", "-e", metavar="NAME", help="Engine plugin; the best one there is if left out.")
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


def _debug(value: bool) -> bool:  # noqa: FBT001 - typer's callback
    STATE.debug = STATE.debug or value
    return value


def _verbose(value: bool) -> bool:  # noqa: FBT001 - typer's callback
    STATE.verbose = STATE.verbose or value
    return value


Debug = Annotated[bool, typer.Option("--debug", callback=_debug, help="Show tracebacks.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", callback=_verbose, help="Log what the engine does.")]

_PREFERRED: Final = ("vllm", "transformers")
_SIMULATED: Final = frozenset({"sim"})


def registry() -> Registry:
    """Return this process's registry; say so if a name given to --allow-plugin or --block-plugin fits nothing."""
    from trunnion import get_registry
    from trunnion.loader import normalize

    found = get_registry()
    known = {normalize(name) for record in found.plugins() for name in (record.entry_point, record.distribution)}
    for flag, name in STATE.policy_names:
        if normalize(name) not in known:
            say(f"note: {flag} {name}: no installed plugin or distribution has that name")
    STATE.policy_names.clear()
    return found


def choose_engine(name: str | None, found: Registry) -> str:
    """Return the engine to use: the one named, else the best real engine that can run here.

    Raises:
        PluginNotFound: None was named and no real engine is usable; the message says what to install.
    """
    if name is not None:
        return name
    usable = [engine.name for engine in found.engines() if engine.name not in _SIMULATED]
    local = [name for name in usable if set(found.engine(name).hardware) != {"remote"}]
    for candidate in (*_PREFERRED, *local):
        if candidate in local:
            return candidate
    if len(usable) == 1:
        return usable[0]
    from trunnion.errors import PluginNotFound

    broken = [r for r in found.plugins() if r.kind in ("engine", "") and r.name not in (*_SIMULATED, *usable)]
    reasons = "; ".join(f"{r.name} is {r.state.value}: {r.reason}" for r in broken) or "none is installed"
    raise PluginNotFound(
        f"no engine was named and none can be chosen ({reasons}). Install one, such as `pip install 'trunnion[vllm]'`, "
        "or name one with --engine (`--engine sim` simulates)"
    )


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
    set_up_logging()
    found = registry()
    plugin = found.engine(choose_engine(engine, found))
    config = parse_assignments("--set", settings or ())
    if adapters:
        config["adapters"] = _adapters(plugin, adapters, config.get("adapters"))
    return found.engine_spec(plugin.name, check_model(plugin, model), config, batch=batch)


def _adapters(plugin: EnginePlugin, pairs: list[str], given: Any) -> Any:
    """Return the engine's ``adapters`` setting: names to paths, or names alone, whichever it takes."""
    from trunnion.errors import ConfigError

    field = plugin.config.model_fields.get("adapters")
    if field is None:
        raise ConfigError(f"engine {plugin.name!r} loads no adapters; leave --adapter out", param="adapters")
    named: dict[str, str] = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not name:
            raise typer.BadParameter(f"--adapter takes NAME=PATH, not {pair!r}")
        named[name] = path
    if "dict" not in str(field.annotation).lower() and "mapping" not in str(field.annotation).lower():
        return [*(given or ()), *named]
    for name, path in named.items():
        if not path:
            raise typer.BadParameter(f"--adapter takes NAME=PATH, not {name!r}")
    return {**(given if isinstance(given, Mapping) else {}), **named}
