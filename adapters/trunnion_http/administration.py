"""Answer what changes an engine for all clients, and needs an administrator's key: adapters, sleep, cached prefixes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, Protocol, runtime_checkable
from urllib.parse import parse_qs

from msgspec import Meta, Struct

from trunnion.errors import InvalidArgument, UnsupportedFeature

from .call import Call
from .models import ModelHandle
from .wire import convert, decoder, encode

if TYPE_CHECKING:
    from .app import App

Verb = Literal["load_adapter", "unload_adapter", "sleep", "wake", "reset_prefix_cache"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """Say what every engine of a model shall do. ``name`` and ``path`` are an adapter's, ``level`` goes with sleep."""

    verb: Verb
    name: str = ""
    path: str = ""
    level: int = 1


@runtime_checkable
class Administrated(Protocol):
    """A model handle that takes orders."""

    async def administer(self, order: Order) -> None:
        """Carry an order out in every engine of the model; returns when all have.

        Raises:
            UnsupportedFeature: The engine cannot do that.
            TrunnionError: An engine could not carry it out; none of them then has a new adapter.
        """
        ...


class LoadAdapterBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/v1/load_lora_adapter`` body; ``model`` names the base model where several are served."""

    lora_name: str
    lora_path: Annotated[str, Meta(min_length=1)]
    model: str | None = None
    load_inplace: bool = False


class UnloadAdapterBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/v1/unload_lora_adapter`` body."""

    lora_name: str
    model: str | None = None


class OrderBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold the body of an order without parameters; it may be left out, and ``model`` be given in the query."""

    model: str | None = None


class SleepBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/sleep`` body: level 1 keeps the weights in main memory, 2 discards them."""

    model: str | None = None
    level: Annotated[int, Meta(ge=1, le=2)] = 1


_decode_load = decoder(LoadAdapterBody)
_decode_unload = decoder(UnloadAdapterBody)
_decode_order = decoder(OrderBody)
_decode_sleep = decoder(SleepBody)
_NOTHING: Final = b"{}"


async def load_adapter(app: App, call: Call) -> None:
    """Load an adapter into every engine of a model; answers as ``/v1/models`` would."""
    body = _decode_load(await call.body(app.settings))
    handle, adapter = app.find(call, body.model)
    if adapter is not None:
        raise InvalidArgument(f"model must name a base model, and {body.model!r} is an adapter", param="model")
    if any(body.lora_name == name for name, _ in app.models):
        message = f"{body.lora_name!r} is the name of a model; give the adapter another"
        raise InvalidArgument(message, param="lora_name")
    if body.lora_name in handle.adapters and not body.load_inplace:
        message = (
            f"there is an adapter {body.lora_name!r}; send load_inplace: true to have it loaded from lora_path instead"
        )
        raise InvalidArgument(message, param="lora_name")
    await _taking(handle).administer(Order(verb="load_adapter", name=body.lora_name, path=body.lora_path))
    loaded = {"id": body.lora_name, "object": "model", "created": app.created, "owned_by": "trunnion"}
    await call.answer(encode({**loaded, "parent": handle.name}))


async def unload_adapter(app: App, call: Call) -> None:
    """Unload an adapter from every engine of a model, once the requests in flight on it have ended."""
    body = _decode_unload(await call.body(app.settings))
    handle, _ = app.find(call, body.model if body.model is not None else body.lora_name)
    await _taking(handle).administer(Order(verb="unload_adapter", name=body.lora_name))
    await call.answer(encode({"id": body.lora_name, "object": "model", "deleted": True}))


async def sleep(app: App, call: Call) -> None:
    """Give the memory of every engine back; ``level`` in body or query."""
    body = _decode_sleep(await call.body(app.settings) or _NOTHING)
    asked = _query(call)
    if "level" in asked:
        body.level = convert({"level": int(asked["level"]) if asked["level"].isdigit() else -1}, SleepBody, "").level
    await _all(app, call, body.model or asked.get("model"), Order(verb="sleep", level=body.level))


async def wake(app: App, call: Call) -> None:
    """Bring back what :func:`sleep` gave away."""
    await _plain(app, call, Order(verb="wake"))


async def reset_prefix_cache(app: App, call: Call) -> None:
    """Forget cached prefixes."""
    await _plain(app, call, Order(verb="reset_prefix_cache"))


async def _plain(app: App, call: Call, order: Order) -> None:
    body = _decode_order(await call.body(app.settings) or _NOTHING)
    await _all(app, call, body.model or _query(call).get("model"), order)


async def _all(app: App, call: Call, model: str | None, order: Order) -> None:
    handle, _ = app.find(call, model)
    await _taking(handle).administer(order)
    await call.answer(encode({"status": "ok", "model": handle.name}))


def _query(call: Call) -> dict[str, str]:
    given = parse_qs(call.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    return {name: values[-1] for name, values in given.items()}


def _taking(handle: ModelHandle) -> Administrated:
    if not isinstance(handle, Administrated):
        raise UnsupportedFeature(f"the model {handle.name!r} takes no orders over HTTP", param="model")
    return handle
