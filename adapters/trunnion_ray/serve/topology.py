"""Know the topologies, choose one, and say what each needs of Ray Serve.

*direct*: HAProxy sends requests straight to the replica that holds the engine; no second Python process between.
*proxy*: plain Ray Serve, whose Python proxy stands between. *gateway*: an ingress deployment in front of several
models. HAProxy mode is decided when Serve starts, by environment variables of its controller.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping
from typing import Any, Final

from ray import serve
from ray.serve.exceptions import RayServeException

from trunnion.errors import ConfigError

from . import _ray_private
from .config import Topology

_log = logging.getLogger("trunnion.serve")

_PORTS: Final = {
    "RAY_SERVE_HAPROXY_METRICS_PORT": 9101,
    "RAY_SERVE_HAPROXY_STATS_PORT": 8404,
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": 8500,
}
"""Ports HAProxy mode takes beside the HTTP port, with Ray's defaults."""
_FEW_CORES: Final = 4


def describe_replica(wanted: Topology) -> dict[str, Any]:
    """Return, inside a replica that holds an engine, what ``/ready`` says of the topology."""
    if wanted == "gateway":
        return {"topology": "gateway", "topology_reason": "the gateway relays requests to this replica"}
    if _ray_private.process_has_haproxy():
        reason = "HAProxy sends requests straight to the engine's replica"
        return {"topology": "direct", "topology_reason": reason}
    reason = "Serve was started without HAProxy, so its Python proxy stands between; see trunnion_ray.serve.run"
    if wanted == "direct":
        _log.warning("the direct topology was asked for, but %s", reason)
    return {"topology": "proxy", "topology_reason": reason}


def own_tag() -> str:
    """Return the tag by which Serve knows this replica; empty outside of one."""
    try:
        return str(serve.get_replica_context().replica_tag)
    except RayServeException:
        return ""


def describe_gateway() -> dict[str, Any]:
    """Return, inside a gateway replica, what ``/ready`` says of the topology."""
    way = "HAProxy" if _ray_private.process_has_haproxy() else "Serve's Python proxy"
    reason = f"{way} sends requests to the gateway, which relays them to the model's deployment"
    return {"topology": "gateway", "topology_reason": reason}


def direct_is_possible() -> tuple[bool, str]:
    """Tell whether Serve could be started with HAProxy here, and if not why."""
    if not _ray_private.haproxy_is_installed():
        return False, "this Ray has no HAProxy (it comes with ray[serve] on Linux)"
    return True, ""


def cluster_env_vars() -> dict[str, str]:
    """Return the variables that switch HAProxy mode on, whatever this machine is like."""
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        # The app and the engine then share the replica's own loop: no hop between threads per event.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        # A reload happens whenever a replica comes or goes; streams older than this are cut by it.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "3600",
        # How long a stopping replica stays reachable; HAProxy has forgotten it within a second, 30 are the default.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    }


def direct_env_vars(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that switch HAProxy mode on, for the cluster or for ``controller_options``.

    What the environment sets already is left to it. Ports that are taken on this machine are replaced by free ones.
    """
    environment = os.environ if environment is None else environment
    wanted = cluster_env_vars()
    cores = os.cpu_count() or 1
    if cores <= _FEW_CORES:
        wanted["RAY_SERVE_HAPROXY_NBTHREAD"] = "1"
    for name, port in _PORTS.items():
        if not _is_free(port):
            wanted[name] = str(_free_port())
            _log.info("port %d is taken, so %s=%s", port, name, wanted[name])
    return {name: environment.get(name, value) for name, value in wanted.items()}


def serve_options(topology: Topology = "direct", *, host: str = "127.0.0.1", port: int = 8000) -> dict[str, Any]:
    """Return the arguments of ``ray.serve.start`` for a topology.

    Args:
        topology: "direct" (or "auto", or "gateway") switches HAProxy on where it can be had; "proxy" does not.
        host: Address to listen on. On several nodes the direct topology needs "0.0.0.0", which also opens the
            replicas' own ports.
        port: Port to listen on.

    Raises:
        ConfigError: The direct topology was asked for by name and there is no HAProxy.
    """
    options: dict[str, Any] = {"http_options": {"host": host, "port": port}}
    if topology == "proxy":
        return options
    possible, reason = direct_is_possible()
    if possible:
        options["controller_options"] = {"runtime_env": {"env_vars": direct_env_vars()}}
    elif topology == "direct":
        raise ConfigError(f"the direct topology cannot be had: {reason}; use topology='proxy'", param="topology")
    else:
        _log.warning("falling back to Serve's own proxy: %s", reason)
    return options


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - only asked, never listened on
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
