"""Reach what Ray Serve keeps private; no other module of this package does.

Written against Ray 2.60; used with 2.54 <= ray < 2.62. What is missing in a version reads as "not there".
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from typing import Any

import ray
from ray.serve._private import constants

CONTROLLER_NAME: str = constants.SERVE_CONTROLLER_NAME
NAMESPACE: str = constants.SERVE_NAMESPACE


def process_has_haproxy() -> bool:
    """Tell whether this process was started with HAProxy mode on: inside a replica, the truth about its cluster."""
    return bool(getattr(constants, "RAY_SERVE_ENABLE_HA_PROXY", False))


def process_has_own_thread() -> bool:
    """Tell whether replicas of this process's environment run user code on a thread of its own."""
    return bool(getattr(constants, "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", True))


def haproxy_is_installed() -> bool:
    """Tell whether this Ray knows HAProxy mode and a HAProxy binary can be found."""
    try:
        from ray.serve._private.haproxy import get_haproxy_binary
    except ImportError:
        return False
    try:
        return bool(get_haproxy_binary())
    except Exception:  # noqa: BLE001 - Ray raises several kinds; they all mean that there is none
        return False


def running_controller() -> Any | None:
    """Return the handle of the cluster's Serve controller, or None where Serve does not run."""
    try:
        return ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE)
    except ValueError:
        return None


def controller_has_haproxy() -> bool:
    """Tell whether the running Serve routes through HAProxy, by the class of its proxy actors."""
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and "SERVE_PROXY_ACTOR" in actor["name"]:
            handle = ray.get_actor(actor["name"], namespace=NAMESPACE)
            descriptor = handle._ray_actor_creation_function_descriptor  # noqa: SLF001
            if "HAProxy" in str(descriptor.class_name):
                return True
    return False


def running_http_address() -> tuple[str, int]:
    """Return host and port that the running Serve was started with."""
    from ray.serve.context import _get_global_client

    client = _get_global_client()
    options = client.http_config
    return str(options.host), int(options.port)


def declared_applications() -> list[Any]:
    """Return the applications that the running Serve was told of in config files, as it was told."""
    controller = running_controller()
    return [] if controller is None else list(ray.get(controller.get_app_configs.remote()).values())


def target_capacity() -> float | None:
    """Return the share of its replicas that the running Serve runs, in percent; None for all."""
    controller = running_controller()
    if controller is None:
        return None
    details = ray.get(controller.get_serve_instance_details.remote())
    return details.get("target_capacity")  # type: ignore[no-any-return]


def apply_config(config: Any) -> None:
    """Have the running Serve deploy what a config says, and delete what an earlier one said and this one does not.

    Returns before anything is built; an application that cannot be built does not keep the others.
    """
    ray.get(_controller().apply_config.remote(config))


def _controller() -> Any:
    return ray.get_actor(CONTROLLER_NAME, namespace=NAMESPACE)


def deployment_option_names() -> frozenset[str]:
    """Return the names that ``Deployment.options`` takes."""
    from ray.serve.deployment import Deployment

    names = inspect.signature(Deployment.options).parameters
    return frozenset(name for name in names if not name.startswith("_") and name not in ("self", "func_or_class"))


def bound_arguments(app: Any) -> tuple[Any, ...]:
    """Return the positional arguments that an application's ingress deployment was bound to."""
    return tuple(app._bound_deployment.init_args)  # noqa: SLF001


def shutdown_timeout(app: Any) -> float:
    """Return the seconds that replicas of an application's ingress deployment have to stop."""
    return float(app._bound_deployment._deployment_config.graceful_shutdown_timeout_s)  # noqa: SLF001


def rebind(app: Any, cls: Any) -> Any:
    """Return an application of the same deployment and arguments, with another class."""
    deployment = app._bound_deployment  # noqa: SLF001
    return deployment.options(func_or_class=cls).bind(*deployment.init_args, **deployment.init_kwargs)


def node_resources() -> list[dict[str, float]]:
    """Return what each living node has in all; empty where this process is not connected to Ray."""
    if not ray.is_initialized():
        return []
    return [{**node["Resources"]} for node in ray.nodes() if node["Alive"]]


def quick_handle(handle: Any) -> Any:
    """Return a handle that costs less per request than Serve's defaults, where this Ray has the choice.

    It chooses replicas on the event loop that this is called on, without a hop between threads, and sends requests over
    gRPC, without Ray's object store between. A handle that was used before stays as it is.
    """
    if not getattr(handle, "is_initialized", True) and hasattr(handle, "_init"):
        with contextlib.suppress(TypeError, RuntimeError):  # the option is not known, or there is no loop
            asyncio.get_running_loop()
            handle._init(_run_router_in_separate_loop=False)  # noqa: SLF001
    try:
        return handle.options(_by_reference=False)
    except TypeError:
        return handle


def plain_pickle(handle: Any) -> Any:
    """Return a handle for what ``pickle`` knows; Serve would take cloudpickle, which is slower."""
    try:
        return handle.options(request_serialization="pickle", response_serialization="pickle")
    except TypeError:
        return handle


async def ask_all(handle: Any, method: str, *arguments: Any, seconds: float) -> list[Any]:
    """Call a method on every running replica; return what they answer, or the exception of those that do not in time.

    Nothing where this Ray cannot. Raises what Serve does where no replica runs.
    """
    if not hasattr(handle, "broadcast"):
        return []
    response = handle.broadcast(method, *arguments)
    begun = getattr(response, "_fetch_replica_results_async", None)
    if begun is None:
        return list(await response.results_async(timeout_s=seconds, return_exceptions=True))
    calls = await asyncio.wait_for(begun(), seconds)
    answers = (asyncio.wait_for(call.get_async(), seconds) for call in calls)
    return await asyncio.gather(*answers, return_exceptions=True)
