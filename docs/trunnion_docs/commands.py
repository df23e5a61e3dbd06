"""Describe every command of ``trunnion``, from the command line itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import typer.main

from trunnion_cli.main import app

_PROGRAM: Final = "trunnion"


def walk() -> Iterator[tuple[str, Any]]:
    """Yield the program and each command with its full name."""
    yield from _walk(_PROGRAM, typer.main.get_command(app))


def _walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield name, command
    for part, inner in getattr(command, "commands", {}).items():
        yield from _walk(f"{name} {part}", inner)


def commands() -> str:
    """Return a section for each command."""
    lines: list[str] = []
    for name, command in walk():
        lines += ["", f"## {name}", "", _text(command.help), "", "```text", _usage(name, command), "```", ""]
        lines += [*_table(command)]
    return "\n".join(lines)


def _usage(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    shown = [_name(one) if one.required else f"[{_name(one)}]" for one in arguments]
    return " ".join([name, "[OPTIONS]", *shown, *(["COMMAND"] if hasattr(command, "commands") else [])])


def _name(argument: Any) -> str:
    return str(argument.metavar or argument.name.upper())


def _table(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        names = [_name(parameter)]
        if parameter.param_type_name == "option":
            names = [*parameter.opts, *parameter.secondary_opts]
        given = parameter.default
        default = "" if given in (None, False, (), []) or callable(given) else str(getattr(given, "value", given))
        cells = (
            ", ".join(f"`{one}`" for one in names),
            _text(getattr(parameter, "help", None)),
            f"`{default}`" if default else "",
        )
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return ["| argument or option | meaning | default |", "|---|---|---|", *rows] if rows else []


def _text(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").strip()
