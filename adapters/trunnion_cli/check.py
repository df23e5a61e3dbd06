"""Hold an installed plugin to the contract with the conformance kit, and print a report."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from .assignments import parse_assignments
from .console import say
from .options import Debug, adapter_paths, check_model, registry

if TYPE_CHECKING:
    from trunnion import PluginRecord
    from trunnion.testing.check import TestResult

_KINDS: Final = ("engine", "stage", "router", "hooks")


def check(
    name: Annotated[str, typer.Argument(help="Name of the plugin.")],
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="Model the engine is tested with.")] = None,
    *,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="engine, stage, router or hooks.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of the plugin, repeatable.")
    ] = None,
    adapters: Annotated[
        list[str] | None, typer.Option("--adapter", metavar="NAME=PATH", help="LoRA adapter of the model, repeatable.")
    ] = None,
    narrow: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Setting with which the engine runs one request at a time."),
    ] = None,
    embedding: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Setting with which the engine embeds.")
    ] = None,
    embedding_model: Annotated[str | None, typer.Option(metavar="MODEL", help="Model that embeds.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(metavar="PATH", help="The model's tokenizer, where the engine names none.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(help="What the engine is asked; its answer should end by itself.")
    ] = None,
    surfaces: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Surfaces to ask it on, by comma; '' for none.")
    ] = None,
    select: Annotated[str, typer.Option("-k", metavar="EXPRESSION", help="Only tests that fit, as pytest's -k.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Run the conformance kit on a plugin; exit with 1 if it breaks a rule."""
    from trunnion.testing.check import Check, check_settings, run_check, summary

    record = _find(name, kind)
    found = registry()
    config = parse_assignments("--set", settings or ())
    used: dict[str, Any] = dict(config)
    if record.kind == "engine":
        model = check_model(found.engine(name), model)
        found.engine_spec(name, model, config)  # said here rather than by a test
        used = check_settings(found, name, model, config)
    asked = Check(
        plugin=name,
        kind=record.kind,
        model=model,
        config=config,
        adapters=adapter_paths(adapters or ()),
        narrow=parse_assignments("--narrow", narrow or ()),
        embedding=parse_assignments("--embedding", embedding or ()),
        embedding_model=embedding_model,
        tokenizer=tokenizer,
        prompt=prompt,
        surfaces=surfaces,
        select=select,
    )
    where = f"{record.kind} {name} ({record.distribution} {record.version})"
    settled = ", ".join(f"{key}={value}" for key, value in used.items())
    say(f"checking {where}" + (f" with {settled}" if settled else ""))
    results = run_check(asked, on_output=None if as_json else _show)
    counts = summary(results)
    if as_json:
        typer.echo(
            json.dumps({"plugin": name, "kind": record.kind, **counts, "tests": list(map(asdict, results))}, indent=2)
        )
    else:
        _report(results)
        typer.echo(f"{where}: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} not checked")
    if counts["failed"]:
        raise typer.Exit(1)


def _show(output: str) -> None:
    """Pass pytest's progress on."""
    sys.stderr.write(output)
    sys.stderr.flush()


def _find(name: str, kind: str | None) -> PluginRecord:
    """Return the record of the plugin.

    Raises:
        typer.BadParameter: The kind is none, or several plugins have the name.
        PluginError: There is no such plugin, or it cannot be used here.
    """
    if kind is not None and kind not in _KINDS:
        raise typer.BadParameter(f"--kind is one of {', '.join(_KINDS)}, not {kind!r}")
    found = registry()
    if kind is None and (source := found.record("source", name)) is not None and source.kind == "source":
        raise typer.BadParameter(f"{name!r} is a source of models; the kit has no suite for sources")
    kinds = [one for one in _KINDS if kind in (None, one) and found.record(one, name) is not None]
    of_kinds = [one for one in kinds if (record := found.record(one, name)) is not None and record.kind == one]
    if len(of_kinds) > 1:
        raise typer.BadParameter(f"{name!r} is the name of several plugins; say which with --kind {of_kinds[0]}")
    if not of_kinds:
        {"stage": found.stage, "router": found.router}.get(kind or "engine", found.engine)(name)  # says why
        raise typer.BadParameter(f"no plugin is called {name!r}; `trunnion plugins list` shows them")
    record = found.record(of_kinds[0], name)
    assert record is not None
    return record


def _report(results: list[TestResult]) -> None:
    for result in results:
        if result.outcome == "failed":
            typer.echo(f"FAILED {result.name}\n  rule: {result.rule}\n  why:  {result.why}")
    left = {result.why for result in results if result.outcome == "skipped"}
    for why in sorted(left):
        names = [result.name for result in results if result.outcome == "skipped" and result.why == why]
        typer.echo(f"not checked: {', '.join(names)}\n  {why}")
