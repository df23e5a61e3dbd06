"""Serve one model on Ray Serve."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from trunnion import EngineSpec, MediaPolicy
from trunnion.adapter_setting import LoraSettings
from trunnion.errors import ConfigError
from trunnion_http import HTTPSettings

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
    replicas: int,
    interrupts: Interrupts,
) -> None:
    """Deploy the model, wait for a signal, then take it down.

    Raises:
        ConfigError: Ray Serve is not installed, or the address cannot be had.
    """
    with bind(host, port) as listener:  # a port that is taken is found out at once; Serve then takes it itself
        port = listener.getsockname()[1]
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    cancel = interrupts.action

    def stop() -> None:
        loop.call_soon_threadsafe(stopped.set)

    async with ray_session():
        try:
            from ray import serve

            from trunnion_ray.serve import ModelConfig, build_openai_app, run
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
        )
        say(f"starting {replicas} x {spec.engine}" + (f" with {spec.model}" if spec.model else "") + " on Ray ...")
        app = build_openai_app([config], http=http)
        await asyncio.to_thread(run, app, host=host, port=port)
        announce(host, port, name, http)
        interrupts.action = stop
        try:
            await stopped.wait()
            say("stopping ...")
        finally:
            interrupts.action = cancel
            await asyncio.to_thread(serve.shutdown)
