"""Serve one model on Ray Serve."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from typing import Any

from trunnion import EngineSpec, MediaPolicy
from trunnion.adapter_setting import LoraSettings
from trunnion.errors import ConfigError, TrunnionError
from trunnion_http import HTTPSettings
from trunnion_http.auth import key_ring

from .console import say
from .interrupts import Interrupts
from .options import absolute
from .ray_session import for_workers, ray_session
from .serve_here import announce, bind
from .state import STATE


async def serve_on_ray(
    spec: EngineSpec,
    name: str,
    http: HTTPSettings,
    *,
    lora: LoraSettings,
    adapters: Mapping[str, str],
    hooks: Mapping[str, Any],
    media: MediaPolicy,
    host: str,
    port: int,
    drain: float,
    replicas: int,
    interrupts: Interrupts,
) -> None:
    """Deploy the model, wait for a signal, then take it down once its requests have ended.

    Raises:
        ConfigError: Ray Serve is not installed, the address cannot be had, or there are no keys where they should be.
        TrunnionError: The model could not be served.
    """
    _check_keys(http)
    with bind(host, port) as listener:  # a port that is taken is found out at once; Serve then takes it itself
        port = listener.getsockname()[1]
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        loop.call_soon_threadsafe(stopped.set)

    async with ray_session():
        try:
            from trunnion_ray.serve import ModelConfig, build_openai_app
            from trunnion_ray.serve.run import is_running
        except ImportError as error:
            raise ConfigError(f"--ray needs Ray Serve ({error}): pip install 'trunnion[ray]'") from error
        logging.getLogger("ray.serve").setLevel(logging.INFO if STATE.verbose else logging.WARNING)
        sent = for_workers(spec)
        config = ModelConfig(
            name=name,
            engine=sent.engine,
            model=sent.model,
            config=dict(sent.config),
            lora=lora,
            adapters={name: absolute(path) for name, path in adapters.items()},
            hooks=dict(hooks),
            media=media,
            num_replicas=replicas,
            graceful_shutdown_timeout_s=drain,
        )
        say(f"starting {replicas} x {spec.engine}" + (f" with {spec.model}" if spec.model else "") + " on Ray ...")
        app = build_openai_app([config], http=http)
        found = await asyncio.to_thread(is_running)
        try:
            await asyncio.to_thread(_run, app, host, port)
            announce(host, port, name, http)
            interrupts.action = stop
            await stopped.wait()
            interrupts.extend(drain)
            say(f"stopping, {drain:g} s at most for what is in flight; Ctrl-C again ends it at once ...")
        finally:
            await asyncio.to_thread(_take_down, drain if stopped.is_set() else 0.0, found=found)


def _check_keys(http: HTTPSettings) -> None:
    """Read the keys as the replicas will. A cluster that runs elsewhere has variables and files of its own."""
    if not os.environ.get("RAY_ADDRESS"):
        key_ring(http.api_keys_env, http.api_keys_file, setting="api_keys")
        key_ring(http.admin_keys_env, http.admin_keys_file, setting="admin_keys")


def _run(app: Any, host: str, port: int) -> None:
    """Deploy the model and wait until it runs; raises :class:`TrunnionError` with its reason where it cannot."""
    from trunnion_ray.serve import run
    from trunnion_ray.serve.deploy_file import failure

    try:
        run(app, host=host, port=port)
    except RuntimeError as error:  # what Serve makes of all failures of a deployment
        raise TrunnionError(f"the model cannot be served: {failure() or error}") from error


def _take_down(drain: float, *, found: bool) -> None:
    """Delete the model, which ends what it has first, then end Serve unless it was there before."""
    from ray import serve

    from trunnion_ray.serve.run import is_running, take_down

    if is_running():  # a start that was given up may not have come as far
        take_down(drain=drain)
        if not found:
            serve.shutdown()
