"""Serve one engine in this process, without Ray."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
from collections.abc import Mapping
from typing import Any, Final

from trunnion import EngineSpec, MediaPolicy
from trunnion.adapter_library import AdapterLibrary
from trunnion.adapter_setting import LoraSettings
from trunnion.errors import ConfigError
from trunnion_http import HTTPServer, HTTPSettings, PipelineModel, create_app, make_server
from trunnion_http.otel import flush_traces, trace_export
from trunnion_http.request_log import write_to

from .console import claim_stdout, say
from .interrupts import Interrupts
from .starting import opened

_NAMED: Final = 8
"""Adapters that are named when it is ready."""
_LAST_WORDS: Final = 2.0
"""Seconds in which streams that are cut short get their error event."""


async def serve_here(
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
    interrupts: Interrupts,
) -> None:
    """Start the engine, serve until a signal comes, then stop it.

    Raises:
        ConfigError: The address cannot be had, or traces are wanted and what sends them is not installed; found out
            before the engine starts.
    """
    with bind(host, port) as listener:
        create_app({}, http)  # wrong settings are refused before the engine starts
        export = trace_export(http)
        if http.log_requests:
            write_to(claim_stdout())
        say(f"starting {spec.engine}" + (f" with {spec.model}" if spec.model else "") + " ...")
        async with opened(spec, hooks=hooks, media=media) as pipeline:
            if export is not None:
                export.start()
            library = AdapterLibrary(pipeline, lora, adapters) if lora.in_use else None
            if library is not None:
                await library.start()
            served = PipelineModel(name, pipeline, library)
            app = create_app([served], http)
            server = make_server(app, host=host, shutdown_timeout=drain + _LAST_WORDS)

            async def stop() -> None:
                await app.suspend_batches()
                load = pipeline.load()
                running = 0 if load is None else load.running + load.waiting
                wait = f", {drain:g} s at most for {running} in flight; Ctrl-C again ends it at once" if running else ""
                say(f"stopping{wait} ...")
                await pipeline.stop(drain=drain)

            server.on_stop = stop
            interrupts.action = lambda: None  # uvicorn takes the signals, and hands them on once it has drained
            announcing = asyncio.ensure_future(_announce(server, listener, name, http, tuple(served.adapters)))
            try:
                await server.serve(sockets=[listener])
            finally:
                announcing.cancel()
                if library is not None:
                    await library.close()
                await asyncio.to_thread(flush_traces)


def bind(host: str, port: int) -> socket.socket:
    """Reserve the address without listening yet: clients are refused until the engine is ready.

    Raises:
        ConfigError: The address cannot be had.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        message = f"cannot listen on {host}:{port}: {error.strerror}; choose another --host or --port"
        raise ConfigError(message, param="port") from error
    listener.setblocking(False)  # noqa: FBT003 - its only argument
    return listener


async def _announce(
    server: HTTPServer, listener: socket.socket, name: str, http: HTTPSettings, adapters: tuple[str, ...]
) -> None:
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag and no event
        await asyncio.sleep(0.02)
    host, port = listener.getsockname()[:2]
    announce(host, port, name, http, adapters)


def how_to_ask(url: str, model: str, http: HTTPSettings) -> str:
    """Return the command that asks a model; ``url`` ends before ``/chat``."""
    body = shlex.quote(json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]}))
    keyed = http.api_keys_env is not None or http.api_keys_file is not None
    key = "-H 'authorization: Bearer YOUR_KEY' " if keyed else ""
    return f"curl {url}/chat/completions {key}-H 'content-type: application/json' -d {body}"


def announce(host: str, port: int, name: str, http: HTTPSettings, adapters: tuple[str, ...] = ()) -> None:
    """Say where the model answers, and how to ask it."""
    reach = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    url = f"http://{reach}:{port}/v1"
    more = f" and {len(adapters) - _NAMED} more" if len(adapters) > _NAMED else ""
    also = f" and its adapters {', '.join(adapters[:_NAMED])}{more}" if adapters else ""
    say(f"ready: {name}{also} at {url} (readiness: http://{reach}:{port}/ready)")
    say(f"try:   {how_to_ask(url, name, http)}")
    if http.page:
        say(f"page:  {url.removesuffix('v1')}")
    say("Ctrl-C stops it")
