"""Chat with a model in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from .assignments import parse_assignments
from .console import claim_stdout
from .interrupts import run_async
from .options import Adapters, Debug, Engine, Hooks, Sampling, Settings, Verbose, build_spec, hook_settings


def chat(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Path or name of the model.")] = None,
    *,
    engine: Engine = None,
    settings: Settings = None,
    adapter: Adapters = None,
    hook: Hooks = None,
    sampling: Sampling = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt.")] = None,
    message: Annotated[
        str | None, typer.Option("--message", "-m", metavar="TEXT", help="Ask this one thing, print the answer, end.")
    ] = None,
    verbose: Verbose = False,  # noqa: ARG001 - kept by its callback
    debug: Debug = False,  # noqa: ARG001 - kept by its callback
) -> None:
    """Chat with MODEL; answers stream as they come.

    `/reset` forgets the conversation, `/exit` or the end of input quits. Ctrl-C stops an answer, twice it quits.
    With `--adapter`, the first one named answers.
    """
    from trunnion.rows import RowOptions

    from .conversation import Conversation

    options = RowOptions(sampling=parse_assignments("--sampling", sampling or ()), delivery="delta")
    spec = build_spec(engine, model, settings, adapter)
    hooks = hook_settings(hook)
    name = adapter[0].partition("=")[0] if adapter else None
    with claim_stdout() as out:
        conversation = Conversation(spec, options, out, hooks=hooks, system=system, adapter=name)
        if message is not None:
            run_async(lambda _: conversation.ask_once(message))
        elif code := run_async(conversation.hold):
            raise typer.Exit(code)
