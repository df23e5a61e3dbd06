"""Stand in front of several models: read the model's name once, and relay requests and responses as bytes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import MutableMapping, Sequence
from typing import Any, Final

import msgspec
import ray

from trunnion.errors import DeadlineExceeded, InvalidArgument, ModelNotFound, TrunnionError
from trunnion_http import App, HTTPSettings, ModelDirectory, create_app
from trunnion_http.account import Account
from trunnion_http.anthropic.errors import is_anthropic
from trunnion_http.anthropic.frames import error_event
from trunnion_http.call import Call, ClientGone
from trunnion_http.generation import time_limit
from trunnion_http.request_log import fields, log_request
from trunnion_http.transcription import TRANSCRIPTIONS, named_model
from trunnion_http.wire import not_json

from .census import Census
from .data_channel import Switchboard
from .errors import unwrap
from .logs import log_to_stderr
from .passing import Passer
from .relay import RelayedRequest, RouteHints
from .remote_model import ModelCard, RemoteModel
from .topology import describe_gateway

_log = logging.getLogger("trunnion.serve")

RELAYED: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        TRANSCRIPTIONS,
        "/v1/score",
        "/score",
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/v1/classify",
        "/classify",
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/v1/responses",
        "/tokenize",
        "/detokenize",
        "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter",
        "/sleep",
        "/wake_up",
        "/reset_prefix_cache",
    }
)
"""Paths whose requests go to the model's replica."""
_UNLOAD: Final = "/v1/unload_lora_adapter"
_AGAIN: Final = 0.5
"""Seconds after which the models are asked again for their adapters."""
_GRACE: Final = 0.5
"""Seconds beyond a request's time for its replica to say so itself. Where none has begun with it, nobody else does."""
_LAST_WORDS: Final = 2.0
"""Seconds beyond the time requests have at a stop, for their replicas to say so themselves."""
_BODILESS: Final = frozenset({"/sleep", "/wake_up", "/reset_prefix_cache"})
_NOTHING: Final = b"{}"
_PREFIX_BYTES: Final = 16_384
"""Bytes of the prompt that a router may look at."""


class _Peek(msgspec.Struct):
    """Read of a body what routing needs; everything else is skipped, not decoded."""

    model: str | None = None
    stream: bool | None = None
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    lora_name: str | None = None
    prompt_cache_key: str | None = None


_peek = msgspec.json.Decoder(_Peek).decode


class GatewayApp:
    """Answer the small GETs itself, and relay the rest."""

    def __init__(self, models: Sequence[RemoteModel], settings: HTTPSettings, passer: Passer) -> None:
        self._models = ModelDirectory(models)
        self._settings = settings
        self._passer = passer
        self._clocks: set[asyncio.Timeout] = set()
        self.app: App = create_app(self._models, settings)
        self.app.notes.update(describe_gateway())
        self.app.behind = self._metrics
        self.census: Census | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":  # the request id header is Serve's own to set
                message["headers"] = [line for line in message["headers"] if line[0] != b"x-request-id"]
            await send(message)

        path: str = scope["path"]
        root = scope.get("root_path")
        if root and path.startswith(root):
            path = path[len(root) :]
        if scope["method"] == "POST" and path.rstrip("/") in RELAYED:
            await self._relay(Call(scope, receive, sending, dict(scope["headers"])), path)
        else:
            if path == "/ready" and self.census is not None:
                await self.census.look()
            if path.startswith("/v1/models"):
                await self._look(_AGAIN)
            await self.app(scope, receive, sending)

    async def _relay(self, call: Call, path: str) -> None:
        metrics, gone = self.app.metrics, False
        call.began = time.perf_counter()
        call.request_id = call.headers.get(b"x-request-id", b"").decode("latin-1")
        if metrics is not None:
            metrics.begin(call)
        try:
            await self._send(call, path)
        except ClientGone:
            gone = True
        except asyncio.CancelledError:
            gone = True
            if call.flight is None or not call.flight.gone:
                raise
            call.flight.task.uncancel()
        except TrunnionError as error:
            await self._fail(call, error)
        except Exception as error:  # noqa: BLE001 - the client is told, the log has it all
            _log.exception("relaying a request failed")
            await self._fail(call, unwrap(error))
        finally:
            if call.flight is not None:
                self.app.watch.leave(call.flight)
            if metrics is not None:
                metrics.end(call, path.rstrip("/"), gone=gone)

    async def _send(self, call: Call, path: str) -> None:
        self.app.check_open()
        body = await call.body(self._settings)
        try:
            model, request, streaming = self._read(call, path, body)
        except ModelNotFound:
            if not await self._look(_AGAIN):
                raise
            model, request, streaming = self._read(call, path, body)  # perhaps an adapter that is new
        call.watch(self.app.watch)
        if is_anthropic(path):
            call.error_frame = lambda error: error_event(error, call.request_id)
        limit = time_limit(call, self._settings)
        clock = asyncio.timeout(None if limit is None else limit + _GRACE)
        self._clocks.add(clock)
        try:
            async with clock:
                await self._passer.send_on(call, model, request, streaming=streaming)
        except TimeoutError as error:
            if not clock.expired():
                raise
            self.app.check_open()
            message = f"the request was not finished within its {limit:g} seconds"
            raise DeadlineExceeded(message, param="deadline") from error
        finally:
            self._clocks.discard(clock)

    def close(self, drain: float) -> None:
        """Take no more requests. Those in flight have ``drain`` seconds: one may wait for a replica that never is."""
        self.app.close()
        end = asyncio.get_running_loop().time() + drain + _LAST_WORDS
        for clock in self._clocks:
            if (when := clock.when()) is None or when > end:
                clock.reschedule(end)

    async def _fail(self, call: Call, error: TrunnionError) -> None:
        """Answer with an error of our own. The replica logs what it answers; of this it knows nothing."""
        await call.fail(error)
        if self._settings.log_requests:
            account = Account()
            account.error = error
            log_request(fields(call, account, gone=False), self._settings.log_format)

    async def _metrics(self) -> list[tuple[str, str]]:
        models = [model for _, model in self._models if isinstance(model, RemoteModel)]
        return [told for one in await asyncio.gather(*(model.metrics() for model in models)) for told in one]

    async def _look(self, within: float) -> bool:
        """Ask the models whose adapters come and go which they have; return whether there are such models."""
        changing = [model for _, model in self._models if isinstance(model, RemoteModel) and model.card.changing]
        await asyncio.gather(*(model.look(within=within) for model in changing))
        return bool(changing)

    @staticmethod
    def _look_into(call: Call, path: str, body: bytes) -> _Peek:
        if path.rstrip("/") == TRANSCRIPTIONS:
            return _Peek(model=named_model(call, body))
        try:
            return _peek(_NOTHING if not body and path in _BODILESS else body)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"the request body is not what {path} takes: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise not_json(body, error) from error

    def _read(self, call: Call, path: str, body: bytes) -> tuple[RemoteModel, RelayedRequest, bool]:
        peek = self._look_into(call, path, body)
        name = peek.lora_name if path == _UNLOAD and peek.model is None else peek.model
        handle, adapter = self._models.resolve(name)
        assert isinstance(handle, RemoteModel)
        call.model = handle.name
        session = peek.prompt_cache_key
        if session is None and b"x-session-id" in call.headers:
            session = call.headers[b"x-session-id"].decode("latin-1")
        hints = RouteHints(
            model=handle.name,
            adapter=adapter,
            session=session,
            prefix=bytes(peek.messages or peek.prompt or peek.input)[:_PREFIX_BYTES].decode("utf-8", "replace"),
        )
        scope = call.scope
        request = RelayedRequest(
            method=scope["method"],
            path=path,
            query=scope.get("query_string", b""),
            headers=[(bytes(name), bytes(value)) for name, value in scope["headers"]],
            body=body,
            hints=hints,
        )
        return handle, request, bool(peek.stream)


class Gateway:
    """Be the ingress deployment in front of several model deployments."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        cards: Sequence[ModelCard],
        handles: Sequence[Any],
        settings: HTTPSettings,
        *,
        retries: int = 0,
        data_channel: bool = True,
    ) -> None:
        log_to_stderr(requests=settings.log_requests)
        self._models = [RemoteModel(card, handle) for card, handle in zip(cards, handles, strict=True)]
        board = Switchboard()
        self._board = board if data_channel and await board.start(ray.util.get_node_ip_address()) else None
        self._app = GatewayApp(self._models, settings, Passer(self._board, retries))
        loop = asyncio.get_running_loop()
        deployments = {model.name: model.whole.deployment_name for model in self._models}
        self._app.census = self._census = Census(deployments, self._app.app.notes)
        self._learning = [loop.create_task(model.keep_learning()) for model in self._models if not model.card.sleeps]

    def __serve_build_asgi_app__(self) -> GatewayApp:
        return self._app

    async def close_doors(self, drain: float) -> None:
        """Take no more requests. Those in flight end as the replicas end them, after ``drain`` seconds at most."""
        self._app.close(drain)
        await self._app.app.suspend_batches()

    async def __del__(self) -> None:
        for task in getattr(self, "_learning", ()):
            task.cancel()
        if (census := getattr(self, "_census", None)) is not None:
            census.close()
        if getattr(self, "_app", None) is not None:
            await self._app.app.suspend_batches()
        if (board := getattr(self, "_board", None)) is not None:
            board.close()
