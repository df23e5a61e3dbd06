"""Define the ``trunnion`` command. Importing this stays light: what a command needs is imported where it runs."""

from __future__ import annotations

import contextlib
import difflib
import faulthandler
import io
import os
import re
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from . import chat, demo, engines, kuberay, plugins, rows, run_batch, serve, sim
from .console import complain
from .options import Debug, Verbose, check_policy_names
from .state import STATE

app = typer.Typer(
    name="trunnion",
    help="Mount any LLM engine once; run batches, serve and chat from the same mount.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(plugins.app, name="plugins")
app.add_typer(sim.app, name="sim")
app.command("engines")(engines.engines)
app.command("demo-model")(demo.demo_model)
app.command("run")(rows.run)
app.command("run-batch")(run_batch.run_batch)
app.command("serve")(serve.serve)
app.command("kuberay")(kuberay.kuberay)
app.command("chat")(chat.chat)


def _version(value: bool) -> None:  # noqa: FBT001 - typer's callback
    if value:
        import trunnion

        typer.echo(f"trunnion {trunnion.__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    *,
    allow_plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Load no plugins but these: entry point or distribution; repeatable."),
    ] = None,
    block_plugin: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Do not load this plugin or distribution; repeatable.")
    ] = None,
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
    verbose: Verbose = False,  # noqa: ARG001 - kept by its callback
    version: Annotated[  # noqa: ARG001 - answered by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    # The environment carries the policy to every worker process, wherever it is started from.
    for flag, variable, names in (
        ("--allow-plugin", "TRUNNION_PLUGINS_ALLOW", allow_plugin),
        ("--block-plugin", "TRUNNION_PLUGINS_BLOCK", block_plugin),
    ):
        if names:
            STATE.policy_names += [(flag, name) for name in names]
            before = os.environ.get(variable, "") if "BLOCK" in variable else ""
            os.environ[variable] = ",".join([*filter(None, [before]), *names])
    if STATE.policy_names:
        check_policy_names()


def main(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0, 1 for a failure, 2 for a wrong use, 130 for Ctrl-C."""
    STATE.debug = "--debug" in arguments
    with contextlib.suppress(io.UnsupportedOperation, ValueError, AttributeError):  # stderr is no file, or closed
        faulthandler.enable()  # an engine's native code may crash: it shall not do so without a word
    try:
        result = app(args=list(arguments), prog_name="trunnion", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        if STATE.debug:
            raise
        return _report(error)
    return result if isinstance(result, int) else 0


def _report(error: Exception) -> int:
    """Write one line about an error and return the exit code."""
    wording = getattr(error, "format_message", None)
    if callable(wording):  # a usage error of typer's, whose class moved between its versions
        if said := str(wording()):  # empty where the help was printed
            complain(_with_suggestion(said.replace("Value error, ", "")))
        return int(getattr(error, "exit_code", 2))
    errors = sys.modules.get("trunnion.errors")
    if errors is not None and isinstance(error, errors.TrunnionError):
        complain(str(error))
        misuse = isinstance(error, errors.InvalidArgument | errors.NotFound | errors.PluginError)
        return 2 if misuse else 1
    if isinstance(error, OSError):
        where = f" {error.filename}" if error.filename else ""
        complain(f"{error.strerror or error}{':' if where else ''}{where}")
        return 2
    complain(f"{type(error).__name__}: {error} (this is a fault of trunnion's; --debug shows where)")
    return 1


def _with_suggestion(said: str) -> str:
    """Add the choice that is nearest to one that is none."""
    found = re.search(r"'([^']*)' is not one of (.*)\.$", said)
    if found is None:
        return said
    near = difflib.get_close_matches(found[1], re.findall("'([^']*)'", found[2]), n=1)
    return f"{said} Did you mean {near[0]!r}?" if near else said


def run() -> None:
    """Run the command of this process's arguments, and exit."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
