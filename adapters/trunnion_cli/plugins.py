"""List, diagnose and describe plugins."""

from __future__ import annotations

import difflib
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .advice import advice, factory_fault
from .check import check
from .options import Debug, registry

if TYPE_CHECKING:
    from trunnion import PluginRecord

app = typer.Typer(help="List, diagnose and describe plugins.", no_args_is_help=True)
app.command("check")(check)
_IN_FORCE: Final = "in force: every request passes through"
_FACTORY: Final = "name the module that holds it: factory='package.module:callable'"
_BROKEN: Final = frozenset({"failed", "conflict", "incompatible"})


@app.command("list")
def list_plugins(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """List every plugin that was found, with what became of it."""
    rows = [_facts(record) for record in registry().plugins()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    columns = ("kind", "name", "state", "distribution", "version", "reason")
    table([{key: row[key] for key in columns} | ({"reason": _IN_FORCE} if row["in_force"] else {}) for row in rows])


def _facts(record: PluginRecord) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "name": record.name,
        "state": record.state.value,
        "distribution": record.distribution,
        "version": record.version,
        "reason": record.reason,
        "in_force": record.kind == "hooks" and record.state.value == "ok",
        "deprecated": list(record.deprecated),
        "entry_point": record.entry_point,
        "module": record.module,
        "summary": "" if record.plugin is None else record.plugin.summary,
    }


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows as columns; cells wrap on a terminal and stay whole in a pipe."""
    import sys

    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for column in rows[0] if rows else ("nothing found",):
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(str(value) or "-") for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 1000, highlight=False).print(made)


@app.command()
def doctor(*, debug: Debug = False) -> None:  # noqa: ARG001 - kept by its callback
    """Explain each plugin that cannot be used and what to do; exit with 1 if one is broken."""
    records = registry().plugins()
    broken = 0
    for record in records:
        state = record.state.value
        for sentence in record.deprecated:
            typer.echo(f"deprecated: {record.kind} {record.name} (from {record.distribution} {record.version})")
            typer.echo(f"  what: {sentence}")
        fault = factory_fault(record) if state == "ok" else record.reason
        if not fault and state == "ok":
            continue
        broken += state in _BROKEN or state == "ok"
        name = f"{record.kind or 'plugin'} {record.name}"
        source = f"{record.distribution} {record.version}".strip() or "an unknown distribution"
        typer.echo(f"{'failed' if state == 'ok' else state}: {name} (from {source}, {record.module})")
        typer.echo(f"  why: {' '.join(fault.split())}")
        typer.echo(f"  do:  {_FACTORY if state == 'ok' else advice(record)}")
    fine = sum(record.state.value == "ok" and not factory_fault(record) for record in records)
    typer.echo(f"{fine} of {len(records)} plugins can be used, {broken} broken")
    if broken:
        raise typer.Exit(1)


@app.command()
def schema(
    name: Annotated[str, typer.Argument(help="Name of a plugin.")],
    *,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="engine, stage, router, hooks or source.")] = None,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Print the JSON Schema of a plugin's settings."""
    from trunnion.errors import ConfigError, PluginNotFound

    found = registry()
    kinds = ("engine", "stage", "router", "hooks", "source")
    if kind is not None and kind not in kinds:
        raise typer.BadParameter(f"--kind is one of {', '.join(kinds)}, not {kind!r}")
    named = [r for r in found.plugins() if r.name == name and r.plugin is not None and kind in (None, r.kind)]
    of_kinds = sorted({record.kind for record in named})
    if len(of_kinds) > 1:
        choices = " or ".join(f"--kind {one}" for one in of_kinds)
        raise ConfigError(f"{name!r} is the name of several plugins; say which with {choices}", param="kind")
    if not named:
        names = sorted({r.name for r in found.plugins() if kind in (None, r.kind)})
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names) or 'none'}"
        if name in names:
            hint = "it could not be loaded, see `trunnion plugins doctor`"
        raise PluginNotFound(f"no {kind + ' ' if kind else ''}plugin is called {name!r}; {hint}")
    plugin = named[0].plugin
    assert plugin is not None
    typer.echo(json.dumps(plugin.config.model_json_schema(), indent=2))


class NewKind(StrEnum):
    """Name the kinds that `new` has templates for."""

    ENGINE = "engine"
    STAGE = "stage"
    ROUTER = "router"
    HOOKS = "hooks"


@app.command()
def new(
    name: Annotated[
        str, typer.Argument(help="What users call it: foo makes trunnion-foo, with the package trunnion_foo.")
    ],
    *,
    kind: Annotated[NewKind, typer.Option(help="What it adds.")] = NewKind.ENGINE,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write, empty or not there; ./trunnion-NAME.")
    ] = None,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Write the repository of a new plugin: it works, is tested, and is yours to change."""
    from .scaffold import PluginNames, check_free, write_plugin

    names = PluginNames.of(name)
    check_free(names, kind.value, registry())
    folder = output or Path(names.distribution)
    for path in write_plugin(names, kind.value, folder):
        typer.echo(folder / path)
    typer.echo(f"\nNext: cd {folder} && pip install -e '.[test]' && pytest   (README.md says what then)")
