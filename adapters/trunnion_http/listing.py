"""Answer the small GETs: models, health, readiness, version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trunnion
from trunnion.errors import ModelNotFound, TrunnionError

from .call import Call
from .errors import error_body
from .models import ModelHandle
from .wire import encode

if TYPE_CHECKING:
    from .app import App


def _model(app: App, name: str, handle: ModelHandle, adapter: str | None) -> dict[str, Any]:
    body: dict[str, Any] = {"id": name, "object": "model", "created": app.created, "owned_by": "trunnion"}
    info = handle.info
    if info is not None and info.context_length is not None:
        body["max_model_len"] = info.context_length
    if adapter is not None:
        body["parent"] = handle.name
    return body


async def list_models(app: App, call: Call) -> None:
    """Answer ``GET /v1/models``: models and their adapters."""
    data = [_model(app, *entry) for entry in app.models.names()]
    await call.answer(encode({"object": "list", "data": data}))


async def get_model(app: App, call: Call, name: str) -> None:
    """Answer ``GET /v1/models/{id}``."""
    if not name:
        raise ModelNotFound("name a model after /v1/models/", param="model")
    handle, adapter = app.models.resolve(name)
    await call.answer(encode(_model(app, name, handle, adapter)))


async def health(app: App, call: Call) -> None:
    """Answer ``GET /health``: 200 while every model works, 503 with the reasons otherwise."""
    failures: dict[str, Any] = {}
    for name, handle in app.models:
        try:
            await handle.check_health()
        except TrunnionError as error:
            failures[name] = error_body(error)["error"]
    body = {"status": "unhealthy", "models": failures} if failures else {"status": "ok"}
    await call.answer(encode(body), status=503 if failures else 200)


async def ready(app: App, call: Call) -> None:
    """Answer ``GET /ready``: 200 once every model answers requests and until the server drains, 503 otherwise."""
    models = {name: handle.ready for name, handle in app.models}
    ok = bool(models) and all(models.values()) and not app.draining
    body = {"status": "draining" if app.draining else "ready" if ok else "starting", "models": models, **app.notes}
    await call.answer(encode(body), status=200 if ok else 503)


async def version(app: App, call: Call) -> None:
    """Answer ``GET /version``: this library's version and each model's engine."""
    infos = {name: handle.info for name, handle in app.models}
    engines = {name: info.library or info.engine for name, info in infos.items() if info is not None}
    await call.answer(encode({"version": trunnion.__version__, "engines": engines}))
