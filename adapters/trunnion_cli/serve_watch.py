"""Tell how the applications of a config file are getting on, as it changes."""

from __future__ import annotations

import asyncio
import contextlib
import time
import urllib.request
from typing import TYPE_CHECKING, Final

from trunnion.errors import TrunnionError

from .console import say
from .serve_here import how_to_ask

if TYPE_CHECKING:
    from trunnion_ray.serve.config_file import FileApplication
    from trunnion_ray.serve.deploy_file import FileDeployment, Report

_PERIOD: Final = 0.5
"""Seconds between looks."""
_ANSWERING: Final = 10.0
"""Seconds for Serve's proxies to learn of an application that is ready."""
_GATEWAY: Final = "gateway"


class Watch:
    """Watch applications on Serve until an event is set, and say what changes."""

    def __init__(self, deployment: FileDeployment, host: str, port: int, stopped: asyncio.Event) -> None:
        self._deployment = deployment
        self._apps = {app.name: app for app in deployment.file.applications}
        self._host, self._port = host, port
        self._stopped = stopped
        self._known: dict[tuple[str, str | None], Report] = {}

    async def run(self) -> None:
        """Watch.

        Raises:
            TrunnionError: No application could be served.
        """
        settled = False
        while not self._stopped.is_set():
            reports = await asyncio.to_thread(self._deployment.look)
            for report in reports:
                if self._is_news(report):
                    await self._tell(report, reports)
            if not settled and all(one.state != "starting" for one in reports if one.model is None):
                settled = True
                if all(one.state == "failed" for one in reports):
                    raise TrunnionError(
                        f"nothing of {self._deployment.file.path} could be served; the reasons are above"
                    )
                say("Ctrl-C stops it")
            await self._pause(_PERIOD)

    def _is_news(self, report: Report) -> bool:
        """Keep a report; tell whether it says what was not said. That something starts goes without saying."""
        key = (report.application, report.model)
        before = self._known.get(key)
        self._known[key] = report
        return report != before and not (before is None and report.state == "starting" and not report.reason)

    async def _tell(self, report: Report, reports: list[Report]) -> None:
        because = f": {report.reason}" if report.reason else ""
        if report.model is not None:
            say(f"{report.state}: model {report.model} of application {report.application}{because}")
            return
        app = self._apps[report.application]
        models = [one for one in reports if one.application == app.name and one.model is not None]
        serving = [str(one.model) for one in models if one.state == "ready"]
        closed = any(one.model == _GATEWAY and one.state == "failed" for one in models)
        if report.state == "ready" and report.reason:  # it was ready before, and its address was told
            say(f"ready: application {app.name}{because}")
        elif report.state == "ready":
            say(f"ready: application {app.name}{await self._where(app)}")
            self._show(app)
        elif report.state == "failed" and serving and not closed:
            say(f"ready in part: application {app.name}, {', '.join(serving)} alone{await self._where(app)}")
        else:
            say(f"{report.state}: application {app.name}{because}")

    def _show(self, app: FileApplication) -> None:
        """Say how to ask an application."""
        if app.config is not None and app.route_prefix is not None:
            say(f"try:   {how_to_ask(f'{self._url(app)}/v1', app.config.models[0].name, app.config.http)}")

    async def _where(self, app: FileApplication) -> str:
        """Return where an application answers, once Serve's proxies know it."""
        if app.route_prefix is None:
            return ""
        url = self._url(app)
        if app.config is None:
            return f" at {url}"
        end = time.monotonic() + _ANSWERING
        while not self._stopped.is_set() and not await asyncio.to_thread(_answers, f"{url}/version"):
            if time.monotonic() > end:  # it may well be that it cannot be reached from here
                break
            await self._pause(0.1)
        return f" at {url}/v1"

    def _url(self, app: FileApplication) -> str:
        host = self._host
        reach = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        secure = (self._deployment.file.data.get("http_options") or {}).get("ssl_certfile")
        return f"{'https' if secure else 'http'}://{reach}:{self._port}{(app.route_prefix or '').rstrip('/')}"

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - http, to Serve's own address
            return True
    except OSError:
        return False
