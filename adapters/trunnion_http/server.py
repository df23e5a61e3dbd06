"""Run the app on uvicorn, in one process and without Ray."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, Final

import uvicorn

from ._protocol import JoiningProtocol
from .app import App

_LOOK: Final = 0.1
"""Seconds between two looks whether a second signal has come."""


class HTTPServer(uvicorn.Server):
    """Run one app. ``/ready`` says no from the first stop signal on, while requests in flight are answered.

    ``on_stop`` is called once the stop has begun, and awaited: whoever stops the engine there, at the end of its own
    patience, gives the streams that are cut short an error event instead of a broken connection.
    """

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._trunnion_app = app
        self.on_stop: Callable[[], Coroutine[Any, Any, None]] | None = None

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Take no more connections, answer what is in flight, then close."""
        stopping = None if self.on_stop is None else asyncio.ensure_future(self.on_stop())
        await super().shutdown(sockets)
        if stopping is None:
            return
        while not stopping.done():
            if self.force_exit:
                stopping.cancel()
            await asyncio.wait([stopping], timeout=_LOOK)
        if not stopping.cancelled():
            stopping.result()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; drain no longer where a second signal comes."""
        self.force_exit = self.should_exit
        self._trunnion_app.draining = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Start, then keep what the models brought in out of the garbage collector's sight.

        A full collection over the heap of an imported engine stalls the event loop for around a second.
        """
        await super().startup(sockets)
        gc.collect()
        gc.freeze()


def make_server(
    app: App,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    keep_alive: float = 75.0,
    shutdown_timeout: float = 30.0,
    access_log: bool = False,
    backlog: int = 2048,
) -> HTTPServer:
    """Return a server that is not running yet; ``await server.serve()`` runs it.

    Args:
        app: What :func:`create_app` returned.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        keep_alive: Seconds an idle connection is kept.
        shutdown_timeout: Seconds requests in flight are given once a stop was asked for.
        access_log: Log every request through uvicorn, at a noticeable cost.
        backlog: Connections that may wait to be accepted.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="uvloop",
        http=JoiningProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=access_log,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(keep_alive),
        timeout_graceful_shutdown=int(shutdown_timeout),
        backlog=backlog,
    )
    return HTTPServer(config, app)


def serve(app: App, **options: Any) -> None:
    """Serve until SIGINT or SIGTERM; takes the options of :func:`make_server`. Runs its own event loop."""
    make_server(app, **options).run()
