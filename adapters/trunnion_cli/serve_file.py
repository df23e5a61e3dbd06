"""Serve what a config file says, on Ray Serve: the file that ``serve deploy`` takes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from trunnion.errors import ConfigError

from .console import complain, say, set_up_logging
from .interrupts import Interrupts, run_async
from .ray_session import ray_session
from .serve_here import bind
from .serve_watch import Watch
from .state import STATE

if TYPE_CHECKING:
    from trunnion_ray.serve.config_file import ServeFile

_TAKEN: Final = frozenset({"model", "host", "port", "ray", "verbose", "debug", "schema"})
"""The parameters of ``trunnion serve`` that mean something with a file."""
_HOST: Final = "127.0.0.1"
_PORT: Final = 8000
"""Where Serve listens if neither the file nor a flag says."""


def serve_file(path: str, context: typer.Context) -> None:
    """Serve the applications of a file until Ctrl-C.

    Raises:
        typer.BadParameter: A flag was given whose place is the file.
        typer.Exit: The file is wrong; what is wrong has been said, a line each.
        TrunnionError: Serve cannot be started, or nothing could be served.
    """
    given = _given(context)
    for option, flag in given.items():
        if option not in _TAKEN:
            raise typer.BadParameter(f"{flag} does not go with a config file: say it in {path}")
    set_up_logging()
    file = read(path)
    options = {name: (file.data.get("http_options") or {}).get(name) for name in ("host", "port")}
    wanted = {name: context.params[name] if name in given else value for name, value in options.items()}
    with _without_rays_remarks():
        run_async(lambda interrupts: _serve(file, wanted["host"], wanted["port"], interrupts))


def read(path: str, **options: Any) -> ServeFile:
    """Read and check a config file; raises typer.Exit after every problem was said, a line each."""
    try:
        from trunnion_ray.serve.config_file import read_config_file
    except ImportError as error:
        raise ConfigError(f"a config file needs Ray Serve ({error}): pip install 'trunnion[ray]'") from error
    try:
        return read_config_file(path, **options)
    except ConfigError as error:
        if STATE.debug or "problems" not in error.details:
            raise
        for line in error.message.splitlines():
            complain(line)
        raise typer.Exit(2) from error


def print_schema() -> None:
    """Print the JSON Schema of config files, with the settings of the engines that are installed."""
    from trunnion import get_registry

    try:
        from trunnion_ray.serve.config_schema import config_schema
    except ImportError as error:
        raise ConfigError(f"the schema needs Ray Serve ({error}): pip install 'trunnion[ray]'") from error
    typer.echo(json.dumps(config_schema(get_registry().engines()), indent=2))


def _given(context: typer.Context) -> dict[str, str]:
    """Return the parameters that the command line sets, with the flag of each."""
    flags = {one.name: one.opts[0] for one in context.command.params}
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name: flags[name] for name, source in sources.items() if source is None or source.name != "DEFAULT"}


async def _serve(file: ServeFile, host: str | None, port: int | None, interrupts: Interrupts) -> None:
    """Deploy the file, tell how its applications are getting on until a signal comes, then take them down."""
    from trunnion_ray.serve.deploy_file import FileDeployment
    from trunnion_ray.serve.planned import cpus_at_start

    if os.environ.get("RAY_ADDRESS"):
        if port == 0:
            raise ConfigError("port 0 takes a free port of this machine; name one for a cluster", param="port")
    else:
        with bind(host or _HOST, _PORT if port is None else port) as listener:  # found out at once if it is taken
            port = listener.getsockname()[1]
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    cancel = interrupts.action
    deployment = FileDeployment(file)

    def stop() -> None:
        loop.call_soon_threadsafe(stopped.set)

    async with ray_session(math.ceil(cpus_at_start(file))):
        logging.getLogger("ray.serve").setLevel(logging.INFO if STATE.verbose else logging.WARNING)
        count = len(file.applications)
        say(f"starting {count} application{'s' if count > 1 else ''} of {file.path} on Ray ...")
        try:
            address = await asyncio.to_thread(deployment.start, host=host, port=port)
            interrupts.action = stop
            await Watch(deployment, *address, stopped).run()
            interrupts.extend(deployment.longest_drain)
            say("stopping ...; Ctrl-C again ends it at once")
        finally:
            interrupts.action = cancel
            if not await asyncio.to_thread(deployment.stop):
                say("what still has requests in flight ends with them, in the cluster")
    interrupts.forgive()  # what was asked for was done


@contextlib.contextmanager
def _without_rays_remarks() -> Iterator[None]:
    """Keep what Ray prints of tasks that failed, at length, from the terminal: we tell of them. Not with --verbose."""
    with contextlib.ExitStack() as stack:
        if not STATE.verbose:
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        yield
