"""Show which engines can run here and what each can do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .options import Debug, registry
from .plugins import table

if TYPE_CHECKING:
    from trunnion import Capabilities, PluginRecord, Registry, StagePlugin

ANY_MODEL: Final = "some/model"
_SHOWN: Final = {
    "LoRA": "adapter",
    "JSON schema": "output_format.json_schema",
    "tools": "tools",
    "logprobs": "sampling.logprobs",
    "images": "media.image",
}


def engines(
    model: Annotated[str | None, typer.Argument(help="Path or name of a model, to see which engine suits it.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every feature.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the README's table of features.")] = False,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Show which engines can run here, on what, what each can do, and which one is chosen where none is named."""
    found = registry()
    records = [record for record in found.plugins() if record.kind in ("engine", "")]
    if as_json:
        typer.echo(json.dumps([_whole(record) for record in records], indent=2))
        return
    stages = found.stages()
    if markdown:
        from .capability_table import capability_table

        typer.echo(capability_table(found.engines(), stages))
        return
    table([_row(record, stages) for record in records])
    _say_choice(model or ANY_MODEL, found)


def _say_choice(model: str, found: Registry) -> None:
    """Say which engine would be taken where none is named, and what speaks against each of the others."""
    from trunnion import choose_engine
    from trunnion.errors import PluginNotFound

    for_what = "any model" if model == ANY_MODEL else model
    try:
        choice = choose_engine(model, registry=found)
    except PluginNotFound as error:
        typer.echo(f"\nauto, for {for_what}: {error.message}")
        return
    typer.echo(f"\nauto, for {for_what}: {choice.engine}, because {choice.reason}")
    for name, reason in choice.against.items():
        typer.echo(f"  not {name}: {reason}")


def _features(record: PluginRecord) -> Capabilities | None:
    return getattr(record.plugin, "capabilities", None)


def _row(record: PluginRecord, stages: list[StagePlugin]) -> dict[str, Any]:
    from trunnion import EnginePlugin

    from .capability_table import support_cell

    capabilities = _features(record)
    row: dict[str, Any] = {
        "engine": record.name,
        "state": record.state.value,
        "runs on": ", ".join(getattr(record.plugin, "hardware", ())),
    }
    for title, feature in _SHOWN.items():
        row[title] = support_cell(feature, record.plugin, stages) if isinstance(record.plugin, EnginePlugin) else ""
    protocols = () if capabilities is None else capabilities.protocols
    row["also"] = ", ".join(sorted(name.partition("/")[0] for name in protocols))
    row["about"] = record.reason or ("" if record.plugin is None else record.plugin.summary)
    return row


def _whole(record: PluginRecord) -> dict[str, Any]:
    capabilities = _features(record)
    return {
        "name": record.name,
        "state": record.state.value,
        "reason": record.reason,
        "summary": "" if record.plugin is None else record.plugin.summary,
        "hardware": list(getattr(record.plugin, "hardware", ())),
        "needs_model": getattr(record.plugin, "needs_model", None),
        "prompts": [] if capabilities is None else list(capabilities.prompts),
        "features": {} if capabilities is None else {k: v.value for k, v in sorted(capabilities.features.items())},
        "protocols": [] if capabilities is None else sorted(capabilities.protocols),
    }
