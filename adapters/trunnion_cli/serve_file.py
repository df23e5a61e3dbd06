"""Serve what a config file says, on Ray Serve: the file that ``serve deploy`` takes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from trunnion.errors import ConfigError, TrunnionError

from .console import complain, say, set_up_logging
from .interrupts import Interrupts, run_async
from .ray_session import ray_session
from .serve_here import bind
from .state import STATE

if TYPE_CHECKING:
    from trunnion_ray.serve.config_file import FileApplication, ServeFile
    from trunnion_ray.serve.deploy_file import FileDeployment, Report

_TAKEN: Final = frozenset({"model", "host", "port", "ray", "verbose", "debug", "schema"})
"""The parameters of ``trunnion serve`` that mean something with a file."""
_PERIOD: Final = 0.5
"""Seconds between looks at how the applications are getting on."""
_ANSWERING: Final = 10.0
"""Seconds for Serve's proxies to learn of an application that is ready."""


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
    options = file.data.get("http_options") or {}
    host = context.params["host"] if "host" in given else options.get("host", context.params["host"])
    port = context.params["port"] if "port" in given else options.get("port", context.params["port"])
    with _without_rays_remarks():
        run_async(lambda interrupts: _serve(file, str(host), int(port), interrupts))


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


async def _serve(file: ServeFile, host: str, port: int, interrupts: Interrupts) -> None:
    """Deploy the file, tell how its applications are getting on until a signal comes, then take them down."""
    from trunnion_ray.serve.deploy_file import FileDeployment
    from trunnion_ray.serve.planned import cpus_at_start

    elsewhere = bool(os.environ.get("RAY_ADDRESS"))
    if not elsewhere:
        with bind(host, port) as listener:  # a port that is taken is found out at once; Serve then takes it itself
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
            await _watch(deployment, *address, stopped)
            say("stopping ...")
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


async def _watch(deployment: FileDeployment, host: str, port: int, stopped: asyncio.Event) -> None:
    """Tell what changes until a signal comes.

    Raises:
        TrunnionError: No application could be served.
    """
    apps = {app.name: app for app in deployment.file.applications}
    known: dict[tuple[str, str | None], Report] = {}
    settled = False
    while not stopped.is_set():
        reports = await asyncio.to_thread(deployment.look)
        for report in reports:
            key = (report.application, report.model)
            if known.get(key) != report and not (key not in known and report.state == "starting" and not report.reason):
                await _tell(report, apps[report.application], reports, host, port)
            known[key] = report
        if not settled and all(one.state != "starting" for one in reports if one.model is None):
            settled = True
            if all(one.state == "failed" for one in reports):
                raise TrunnionError(f"nothing of {deployment.file.path} could be served; the reasons are above")
            say("Ctrl-C stops it")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), _PERIOD)


async def _tell(report: Report, app: FileApplication, reports: list[Report], host: str, port: int) -> None:
    if report.model is not None:
        of = f"model {report.model} of application {report.application}"
        say(f"{report.state}: {of}" + (f": {report.reason}" if report.reason else ""))
        return
    serving = [one.model for one in reports if one.application == app.name and one.model and one.state == "ready"]
    if report.state == "failed" and serving:
        say(f"ready: application {app.name}, with {', '.join(serving)} alone{await _where(app, host, port)}")
    elif report.state == "ready":
        say(f"ready: application {app.name}{await _where(app, host, port)}")
    else:
        say(f"{report.state}: application {app.name}" + (f": {report.reason}" if report.reason else ""))
    if report.state == "ready" and app.config is not None and app.route_prefix is not None:
        body = json.dumps({"model": app.config.models[0].name, "messages": [{"role": "user", "content": "Hello!"}]})
        url = f"{_url(app, host, port)}/v1/chat/completions"
        say(f"try:   curl {url} -H 'content-type: application/json' -d {shlex.quote(body)}")


def _url(app: FileApplication, host: str, port: int) -> str:
    reach = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{reach}:{port}{(app.route_prefix or '').rstrip('/')}"


async def _where(app: FileApplication, host: str, port: int) -> str:
    """Return where an application answers, once Serve's proxies know it."""
    if app.route_prefix is None:
        return ""
    url = _url(app, host, port)
    if app.config is None:
        return f" at {url}"
    await asyncio.to_thread(_until_it_answers, f"{url}/version")
    return f" at {url}/v1"


def _until_it_answers(url: str) -> None:
    end = time.monotonic() + _ANSWERING
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - http, to Serve's own address
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
