"""Run an application on Ray Serve in the best topology that can be had, and say which and why."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from typing import Any, Final

from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from trunnion.errors import ConfigError

from . import _ray_private
from .closing import close_doors
from .config import Topology
from .topology import serve_options

_log = logging.getLogger("trunnion.serve")
_SWITCH: Final = "RAY_SERVE_ENABLE_HA_PROXY"


def run(
    app: Application,
    *,
    topology: Topology = "auto",
    host: str | None = None,
    port: int | None = None,
    name: str = "default",
    route_prefix: str | None = "/",
    blocking: bool = False,
    **options: Any,
) -> DeploymentHandle[Any]:
    """Start Serve if it does not run yet, then run the application.

    ``ray.serve.run(app)`` works as well, in the topology the cluster was started for; this function starts Serve
    such that the direct topology can be had.

    Args:
        app: What :func:`build_openai_app` returned, or any application of these deployments.
        topology: "auto" takes HAProxy where it can be had; "direct" insists on it; "proxy" does without.
        host: Address to listen on, 127.0.0.1 if unset. What a running Serve listens on cannot be changed.
        port: Port to listen on, 8000 if unset.
        name: The application's name.
        route_prefix: Path under which the application answers.
        blocking: Stay here until Ctrl-C.
        **options: Further arguments of ``ray.serve.run``.

    Raises:
        ConfigError: The direct topology was asked for by name and cannot be had.
    """
    ensure_serve(topology, host=host, port=port)
    return serve.run(app, name=name, route_prefix=route_prefix, blocking=blocking, **options)


def is_running() -> bool:
    """Tell whether Serve runs on the cluster that this process is connected to."""
    return _ray_private.running_controller() is not None


def take_down(name: str = "default", *, drain: float) -> bool:
    """Stop an application: new requests are told 503, its replicas end those they have, and it is deleted.

    Args:
        name: The application's name; one that does not run is gone already.
        drain: Seconds that requests in flight have.

    Returns:
        Whether all of it is gone; what is not has requests in flight.
    """
    if drain > 0 and (running := serve.status().applications.get(name)) is not None:
        close_doors({name: dict.fromkeys(running.deployments, drain)})
    serve.delete(name, _blocking=False)
    return wait_until_gone([name], drain)


def wait_until_gone(names: Collection[str], seconds: float) -> bool:
    """Wait until Serve has no application of these names any more; tell whether it has none."""
    end = time.monotonic() + seconds
    while not serve.status().applications.keys().isdisjoint(names):
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def ensure_serve(
    topology: Topology = "auto",
    *,
    host: str | None = None,
    port: int | None = None,
    further: Mapping[str, Any] | None = None,
) -> str:
    """Start Serve for a topology, or look at the one that runs; return "direct" or "proxy", what it offers.

    Args:
        topology: As for :func:`run`.
        host: Address to listen on.
        port: Port to listen on.
        further: Further arguments of ``ray.serve.start``, such as ``proxy_location`` and more ``http_options``.

    Raises:
        ConfigError: Serve runs already, and not with what was asked for by name.
    """
    import ray

    if not ray.is_initialized():
        ray.init()
    if _ray_private.running_controller() is None:
        start = _merged(serve_options(topology, host=host or "127.0.0.1", port=port or 8000), further or {})
        serve.start(**start)
        offered = "direct" if _variables(start).get(_SWITCH) == "1" else "proxy"
        why = "HAProxy is there" if offered == "direct" else "asked for" if topology == "proxy" else "no HAProxy"
        _log.info("Serve was started for the %s topology: %s", offered, why)
        return offered
    offered = "direct" if _ray_private.controller_has_haproxy() else "proxy"
    if topology == "direct" and offered != "direct":
        msg = (
            "the direct topology cannot be had: Serve runs already, without HAProxy, and cannot be switched; shut it "
            "down first (ray.serve.shutdown()), or use topology='auto'"
        )
        raise ConfigError(msg, param="topology")
    if topology != "proxy" and offered == "proxy":
        _log.warning(
            "Serve runs already, without HAProxy: falling back to its own proxy, at a third of the requests per second "
            "or less. Let trunnion_ray.serve.run start Serve, or start the cluster with the variables of "
            "trunnion_ray.serve.direct_env_vars()"
        )
    else:
        _log.info("Serve runs already and offers the %s topology", offered)
    running = _ray_private.running_http_address()
    if (host is not None and host != running[0]) or (port is not None and port != running[1]):
        _log.warning("Serve runs already and listens on %s:%d; that cannot be changed", *running)
    return offered


def _merged(start: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments to start Serve with; the address is the one we chose, all else as the user says."""
    merged = {**start, **further}
    merged["http_options"] = {**further.get("http_options", {}), **start["http_options"]}
    if variables := {**_variables(start), **_variables(further)}:
        merged["controller_options"] = {"runtime_env": {"env_vars": variables}}
    return merged


def _variables(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables of Serve's controller."""
    environment = (arguments.get("controller_options") or {}).get("runtime_env") or {}
    return dict(environment.get("env_vars") or {})
