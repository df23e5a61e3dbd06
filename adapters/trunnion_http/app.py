"""Define the app: OpenAI's API as one raw ASGI callable over core types.

It knows nothing of Ray nor of any engine. There is no framework between the server and a handler: on two cores one
would cost more than everything else here together.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from trunnion.errors import Cancelled, PermissionDenied, Transient, TrunnionError, UnsupportedFeature

from .auth import key_ring
from .batches.ask import INSIDE
from .batches.keeper import Keeper
from .batches.routing import serve_stored, stored_route
from .call import Call, ClientGone, Scope, Send, path_of
from .cors import CrossOrigin
from .disconnects import DisconnectWatch, Receive
from .door import Door
from .errors import internal_error, method_not_allowed, unknown_path
from .listing import get_model
from .metrics import Metrics
from .models import ModelDirectory, ModelHandle
from .observing import Observer
from .page import answer_page, wants_page
from .route_table import ADMIN, OPEN, ROUTES
from .settings import HTTPSettings

logger = logging.getLogger("trunnion.http")

Lifespan = Callable[[], AbstractAsyncContextManager[Any]]

_MODEL: Final = "/v1/models/"
_STORED: Final = ("/v1/files", "/v1/batches")
_LONGEST_ID: Final = 128
_AFTER_A_STOP: Final = 1.0
"""Seconds after which whoever came too late may ask again: another server may be there by then."""


class App:
    """Answer OpenAI's API. Make one with :func:`create_app`.

    Attributes:
        models: What is served; may change while the app runs.
        settings: Limits and keys.
        draining: Set it, and ``/ready`` says no while requests are still answered.
        notes: Further facts for ``/ready``, such as the topology.
        batches: Keeps files and batches; None where that is switched off.
        instance: What tells this process's metrics from those of others.
        behind: Returns the metrics of the processes that requests are relayed to, with the name of each; None where
            this one answers itself.
    """

    def __init__(self, models: ModelDirectory, settings: HTTPSettings, lifespan: Lifespan | None) -> None:
        self.models = models
        self.settings = settings
        self.watch = DisconnectWatch(settings.disconnect_interval)
        self.created = int(time.time())
        self.draining = False
        self.notes: dict[str, Any] = {}
        self._closed = False
        self._lifespan = lifespan
        self._keys = key_ring(settings.api_keys_env, settings.api_keys_file, setting="api_keys")
        self._admins = key_ring(settings.admin_keys_env, settings.admin_keys_file, setting="admin_keys")
        self._cors = CrossOrigin(settings.cors_origins) if settings.cors_origins else None
        self.batches = None if settings.batches is None else Keeper(self, settings.batches)
        self.metrics = Metrics() if settings.metrics else None
        self._observer = Observer.of(settings)
        self._door = None if settings.max_requests is None else Door(settings.max_requests)
        self._id_prefix = uuid.uuid4().hex[:20]
        self.instance = self._id_prefix[:8]
        self._counter = itertools.count(1)
        self.behind: Callable[[], Awaitable[list[tuple[str, str]]]] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await self._run_lifespan(receive, send)
        elif kind == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    def find(self, call: Call, name: str | None) -> tuple[ModelHandle, str | None]:
        """Return the handle and the adapter that a request names. Raises :class:`ModelNotFound`."""
        handle, adapter = self.models.resolve(name)
        if call.inside is not None:
            call.rank(handle.info)
        if self.metrics is not None:
            call.model = handle.name
            call.figures = self.metrics.model(handle.name)
        if call.account is not None:
            call.model = handle.name
            call.account.found(name, handle, adapter)
        return handle, adapter

    def find_base(self, call: Call, name: str | None, cannot: str) -> ModelHandle:
        """Return the handle that a request names, for what adapters have no part in.

        Raises:
            ModelNotFound: Nothing of that name is served.
            UnsupportedFeature: It names an adapter, which ``cannot``: "cannot transcribe".
        """
        handle, adapter = self.find(call, name)
        if adapter is not None:
            message = f"adapter {adapter!r} {cannot}; name the model {handle.name!r}"
            raise UnsupportedFeature(message, param="model")
        return handle

    def close(self) -> None:
        """Take no more requests: they are told 503 from now on, while those in flight are answered."""
        self.draining = self._closed = True

    def check_open(self) -> None:
        """Raise :class:`Transient` once the app is closed."""
        if self._closed:
            raise Transient("the server is being stopped", retry_after=_AFTER_A_STOP)

    def ids(self, call: Call, wanted: str | None) -> tuple[str, str]:
        """Return the id the client sees and the engine's, which is unique even if clients repeat theirs."""
        if wanted is None:
            if not call.client_id:
                return call.request_id, call.request_id
            wanted = call.request_id
        return wanted, f"{wanted}-{next(self._counter):x}"

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(scope, receive, send, dict(scope["headers"]))
        call.inside = scope.get(INSIDE)
        given = call.headers.get(b"x-request-id")
        if given is not None and _is_clean(given):
            call.request_id = given.decode("ascii")
            call.client_id = True
        else:
            call.request_id = f"{self._id_prefix}{next(self._counter):08x}"
        call.began = time.perf_counter()
        if self.metrics is not None:
            self.metrics.begin(call)
        observed = None if self._observer is None else self._observer.begin(call)
        gone = False
        try:
            await self._route(call)
        except ClientGone:
            gone = True
        except asyncio.CancelledError:
            gone = True
            if call.flight is None or not call.flight.gone:
                raise
            call.flight.task.uncancel()  # our own doing: the server need not hear of it
        except TrunnionError as error:
            await self._fail(call, error)
        except Exception:
            logger.exception("request %s failed", call.request_id)
            await self._fail(call, internal_error())
        finally:
            if call.flight is not None:
                self.watch.leave(call.flight)
            if self.metrics is not None:
                self.metrics.end(call, self._endpoint(call, path_of(scope)), gone=gone)
            if self._observer is not None:
                self._observer.end(call, observed, gone=gone)

    @staticmethod
    def _endpoint(call: Call, path: str) -> str | None:
        """Return the path that stands for a request in the metrics: one of a known number."""
        if call.inside is not None:
            return f"batch:{path}"
        if path in ROUTES:
            return path
        stored = stored_route(path)
        return stored[0] if stored else _MODEL if path.startswith(_MODEL) else None

    async def _route(self, call: Call) -> None:
        scope = call.scope
        path = path_of(scope)
        route = ROUTES.get(path) or ROUTES.get(path.rstrip("/"))
        method: str = scope["method"]
        if route is None and path in ("", "/") and self.settings.page and wants_page(call):
            await answer_page(call)
            return
        if self._cors is not None and self._cors.look(call):
            await self._cors.answer(call)
            return
        admin = path.rstrip("/") in ADMIN
        if admin or path not in OPEN:
            self._admit(call, admin=admin)
        if route is None:
            if path.startswith(_STORED):
                await serve_stored(self, call, path)
                return
            if not path.startswith(_MODEL):
                raise unknown_path(method, path)
            allowed = "GET"
        else:
            allowed = route[0]
        if method != allowed and not (method == "HEAD" and allowed == "GET"):
            raise method_not_allowed(method, path, allowed)
        if route is None:
            await get_model(self, call, path[len(_MODEL) :])
        elif self._door is None or method != "POST" or admin or call.inside is not None:
            await route[1](self, call)
        else:
            entered = self._door.enter()
            try:
                await route[1](self, call)
            finally:
                self._door.leave(entered)

    def _admit(self, call: Call, *, admin: bool) -> None:
        """Find out whose key a request carries, where keys are asked for.

        Raises:
            Transient: The app is closed.
            AuthenticationFailed: It carries none, or a wrong one.
            PermissionDenied: It carries no administrator's.
        """
        if call.inside is not None:
            call.tenant = call.inside.tenant
            return
        self.check_open()
        chief = None if self._admins is None else self._admins.find(call.headers)
        if chief is not None:
            call.tenant = chief
            return
        if admin:
            where = path_of(call.scope)
            if self._admins is None:
                raise PermissionDenied(
                    f"{where} is for administrators, and admin_keys_env and admin_keys_file name none"
                )
            if self._keys is None or self._keys.find(call.headers) is None:
                self._admins.check(call.headers)
            raise PermissionDenied(f"{where} needs an administrator's key")
        if self._keys is not None:
            call.tenant = self._keys.check(call.headers)

    async def _fail(self, call: Call, error: TrunnionError) -> None:
        if isinstance(error, Cancelled) and call.inside is None:
            # The client waits still, so it was not the one who gave up: the engine is being stopped.
            error = Transient(error.message, param=error.param, retry_after=error.retry_after or _AFTER_A_STOP)
        if error.http_status >= 500:  # noqa: PLR2004 - HTTP's server errors
            # The lines of a batch tell their errors in its files: a log of them all would hide what else is in it.
            level = logging.WARNING if call.inside is None else logging.INFO
            logger.log(level, "request %s failed: %s: %s", call.request_id, type(error).__name__, error)
        if call.account is not None:
            call.account.error = error
        headers = None
        if error.code == "method_not_allowed":
            headers = [(b"allow", error.message.rpartition(" ")[2].encode())]
        await call.fail(error, headers)

    async def suspend_batches(self) -> None:
        """Run batches no further; whoever shares the folder goes on with them. For the time before an engine stops."""
        if self.batches is not None:
            await self.batches.stop()

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        context = None if self._lifespan is None else self._lifespan()
        try:
            if context is not None:
                await context.__aenter__()
        except Exception as error:
            logger.exception("start-up failed")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        if self.batches is not None:
            self.batches.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.suspend_batches()
        try:
            if context is not None:
                await context.__aexit__(None, None, None)
        except Exception as error:
            logger.exception("shutdown failed")
            await send({"type": "lifespan.shutdown.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})


def _is_clean(value: bytes) -> bool:
    """Tell whether a client's request id may go into headers and logs."""
    return 0 < len(value) <= _LONGEST_ID and value.isascii() and value.decode("ascii").isprintable()


def create_app(
    models: Mapping[str, ModelHandle] | Iterable[ModelHandle] | ModelDirectory,
    settings: HTTPSettings | None = None,
    *,
    lifespan: Lifespan | None = None,
) -> App:
    """Make the app.

    Args:
        models: What to serve: handles by name, handles, or a directory that changes while the app runs.
        settings: Limits and keys; the defaults if left out.
        lifespan: Called when the server starts; returns an async context manager that is entered before the first
            request and left after the last, on the server's loop: the place to open pipelines.

    Raises:
        ConfigError: Two models have one name, or a setting names a variable or a file without keys.
    """
    directory = models if isinstance(models, ModelDirectory) else ModelDirectory(models)
    return App(directory, settings or HTTPSettings(), lifespan)
