"""Deploy what a config file says, and tell how each application and each model is getting on."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from ray import serve
from ray.serve.schema import ServeDeploySchema

from trunnion.errors import ConfigError

from . import _ray_private
from .closing import close_doors
from .config_file import FileApplication, ServeFile
from .options import deployment_name
from .run import ensure_serve, wait_until_gone

State = Literal["starting", "ready", "failed"]
_UNHEALTHY: Final = "UNHEALTHY"
_STATES: Final[dict[str, State]] = {
    "HEALTHY": "ready",
    "UPSCALING": "ready",
    "DOWNSCALING": "ready",
    "UNHEALTHY": "failed",
    "DEPLOY_FAILED": "failed",
    "RUNNING": "ready",
}
_REPLACING: Final = "a replica is lost and is being replaced; the others answer"
_START_ONLY: Final = ("proxy_location", "grpc_options", "logging_config", "tracing_config", "controller_options")
"""What a file may say besides ``http_options`` and the applications, and a running Serve does not take."""
_DRAIN: Final = 20.0
"""Seconds that Serve gives a replica to end if nothing is said, and about what it takes to end one."""
_COLOURS: Final = re.compile(r"\x1b\[[0-9;]*m")
_RAISED: Final = re.compile(r"[A-Za-z_][\w.]*(?:\([\w.]+\))?: \S")
_OURS: Final = re.compile(r"trunnion\.errors\.\w+: ")


@dataclass(frozen=True, slots=True)
class Report:
    """Say how an application, or one model of it, is getting on.

    Attributes:
        application: Its name.
        model: The name that clients send; None for the application as a whole.
        state: How it is.
        reason: Why it failed, what it waits for, or that a replica is being replaced; empty where there is
            nothing to say.
    """

    application: str
    model: str | None
    state: State
    reason: str = ""


class FileDeployment:
    """Run the applications of a file. All methods block; Ray must be connected."""

    def __init__(self, file: ServeFile) -> None:
        self.file = file
        self.started_serve = False
        self._deployed = False
        self._changing = threading.Lock()

    def start(self, *, host: str | None, port: int | None) -> tuple[str, int]:
        """Start Serve unless it runs, hand all applications over, and return the address that Serve listens on.

        Args:
            host: Address that Serve should listen on; None for 127.0.0.1, or what a running one listens on.
            port: Its port; None for 8000, or what a running one has.

        Raises:
            ConfigError: Serve runs already and has an application of that name or path, or not the topology.
        """
        with self._changing:
            return self._start(host, port)

    def _start(self, host: str | None, port: int | None) -> tuple[str, int]:
        config = self.file.to_ray()
        self.started_serve = _ray_private.running_controller() is None
        if not self.started_serve:
            self._refuse_collisions()
        given = config.model_dump(exclude_unset=True, mode="json")
        further = {name: given[name] for name in ("http_options", *_START_ONLY) if given.get(name) is not None}
        ensure_serve(self.file.topology, host=host, port=port, further=further)
        if not self.started_serve:
            config = self._beside(config)
        self._deployed = True
        _ray_private.apply_config(config)
        return _ray_private.running_http_address()

    def _refuse_collisions(self) -> None:
        running = serve.status().applications
        routes = {app.route_prefix: app.name for app in _ray_private.declared_applications()}
        for index, app in enumerate(self.file.applications):
            if app.name in running:
                message = f"Serve runs an application {app.name!r} already; choose another name, or update it with "
                raise ConfigError(message + "`serve deploy`", param=f"applications[{index}].name")
            if app.route_prefix is not None and app.route_prefix in routes:
                message = f"{app.route_prefix} belongs to application {routes[app.route_prefix]!r}, which Serve runs "
                raise ConfigError(message + "already; choose another", param=f"applications[{index}].route_prefix")

    def _beside(self, config: ServeDeploySchema | None) -> ServeDeploySchema:
        """Return a config that keeps what others have deployed, with our applications or without."""
        ours = {app.name for app in self.file.applications}
        others = [app for app in _ray_private.declared_applications() if app.name not in ours]
        own = [] if config is None else list(config.applications)
        return ServeDeploySchema(applications=[*others, *own], target_capacity=_ray_private.target_capacity())

    def look(self) -> list[Report]:
        """Return how each application is getting on, and each model of those that have several."""
        running = serve.status().applications
        return [report for app in self.file.applications for report in _reports(app, running.get(app.name))]

    def stop(self, timeout: float = 10.0) -> bool:
        """Take down what was started: the file's applications, and Serve unless it ran before.

        Requests in flight have the time that the file gives each model, ``graceful_shutdown_timeout_s``.

        Args:
            timeout: Seconds to wait for the applications of a Serve that goes on.

        Returns:
            Whether all is gone; what is not has requests in flight, and ends with them.
        """
        ours = [app.name for app in self.file.applications]
        with self._changing:  # a start that was given up goes on in its thread; what it made is taken down as well
            if self._deployed:
                close_doors(self._drains(), most=None if self.started_serve else timeout)
                _ray_private.apply_config(self._beside(None))
            gone = not self._deployed or wait_until_gone(ours, self.longest_drain if self.started_serve else timeout)
            if self.started_serve:
                serve.shutdown()
                return True
        return gone

    def _drains(self) -> dict[str, dict[str, float]]:
        """Return the seconds that requests in flight have, by deployment, of each application that runs."""
        running = serve.status().applications
        drains: dict[str, dict[str, float]] = {}
        for app in self.file.applications:
            if app.name in running:
                models = () if app.config is None else app.config.models
                own = {deployment_name(one.name): one.graceful_shutdown_timeout_s for one in models}
                longest = max(own.values(), default=_DRAIN)  # what a gateway has
                drains[app.name] = {name: own.get(name, longest) for name in running[app.name].deployments}
        return drains

    @property
    def longest_drain(self) -> float:
        """Return the seconds within which every model has let its requests end, as the file says, or was ended."""
        models = [model for app in self.file.applications if app.config is not None for model in app.config.models]
        return max((model.graceful_shutdown_timeout_s for model in models), default=_DRAIN) + _DRAIN


def model_names(app: FileApplication) -> dict[str, str]:
    """Return the names of an application's models by those of their deployments; empty for a user's own program."""
    if app.config is not None:
        return {deployment_name(model.name): model.name for model in app.config.models}
    if app.mirrored is not None:
        return {f"LLMServer:{deployment_name(one.model_id)}": one.model_id for one in app.mirrored.llm_configs}
    return {}


def _reports(app: FileApplication, running: Any | None) -> Iterator[Report]:
    if running is None:
        yield Report(app.name, None, "starting")
        return
    names = model_names(app)
    states: list[Report] = []
    for name, deployment in running.deployments.items():
        state = _STATES.get(deployment.status.value, "starting")
        reason = "" if state == "ready" else short_reason(deployment.message)
        if deployment.status.value == _UNHEALTHY and deployment.replica_states.get("RUNNING", 0) > 0:
            state, reason = "ready", _REPLACING
        if not names or name in names or state == "failed":  # a gateway is worth telling of where it fails
            states.append(Report(app.name, names.get(name, name), state, reason))
    if len(states) > 1:
        yield from states
    whole = _STATES.get(running.status.value, "starting")
    if whole == "failed" and any(one.state == "starting" for one in states):
        whole = "starting"  # it is not known yet what will serve
    if running.status.value == _UNHEALTHY and all(one.state == "ready" for one in states):
        whole = "ready"
    reasons = [one.reason for one in states if one.reason and (one.state != "ready" or whole == "ready")]
    reason = next(iter(reasons), "")
    if whole == "failed" and not reason:  # it could not even be built
        reason = short_reason(running.message)
    yield Report(app.name, None, whole, reason)


def failure(name: str = "default") -> str:
    """Return why an application of a running Serve failed; empty where Serve does not tell."""
    running = serve.status().applications.get(name)
    if running is None:
        return ""
    failed = [one.message for one in running.deployments.values() if _STATES.get(one.status.value) == "failed"]
    return next(filter(None, map(short_reason, [*failed, running.message])), "")


def short_reason(message: str) -> str:
    """Return what matters of Serve's messages, which hold whole tracebacks: the error that was raised last."""
    lines = [line.strip() for line in _COLOURS.sub("", message).splitlines() if line.strip()]
    for line in reversed(lines):
        if _RAISED.match(line) and not line.startswith("ray::"):
            return _OURS.split(line)[-1]
    return lines[0] if lines else ""
