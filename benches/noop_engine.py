"""Register an engine that does nothing, so that what is measured is the framework's own share."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from importlib.metadata import EntryPoint

from trunnion import (
    Capabilities,
    ChoiceDelta,
    EngineInfo,
    EnginePlugin,
    GenerateEvent,
    GenerateRequest,
    Pipeline,
    Registry,
    TokenizerRef,
    Usage,
    get_registry,
    hookimpl,
)
from trunnion.hookspecs import ENTRY_POINT_GROUP
from trunnion_demo import model_path

CAPABILITIES = Capabilities.of(yes=("sampling.*", "detokenize"), prompts=("token_ids",))
EVENTS = 16
_DELTA = ChoiceDelta(text=" word", token_ids=(7,))
_MIDDLE = GenerateEvent(choices=(_DELTA,))
_LAST = GenerateEvent(
    choices=(ChoiceDelta(text=" word", token_ids=(7,), finish_reason="length"),),
    usage=Usage(prompt_tokens=8, completion_tokens=EVENTS),
)


class NoopEngine:
    """Yield the same events to everybody."""

    def __init__(self, model: str | None, config: object) -> None:  # noqa: ARG002
        self.model = model

    async def start(self) -> EngineInfo:
        return EngineInfo(
            engine="noop", model="noop", capabilities=CAPABILITIES, tokenizer=TokenizerRef(path=str(model_path()))
        )

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        if request.delivery == "delta":
            for _ in range(EVENTS - 1):
                yield _MIDDLE
        yield _LAST

    async def stop(self, *, drain: float = 0.0) -> None:
        pass


@hookimpl
def trunnion_engines() -> list[EnginePlugin]:
    return [EnginePlugin(name="noop", factory="noop_engine:NoopEngine", capabilities=CAPABILITIES, needs_model=False)]


def noop_pipeline() -> Pipeline:
    """Return a pipeline over the engine, with the stages that are installed."""
    own = EntryPoint(name="noop", value="noop_engine", group=ENTRY_POINT_GROUP)
    installed = {record.entry_point: record.module for record in get_registry().plugins()}
    others = [EntryPoint(name=name, value=module, group=ENTRY_POINT_GROUP) for name, module in installed.items()]
    registry = Registry(entry_points=(own, *others))
    return Pipeline(registry.engine_spec("noop"), registry=registry)


__all__ = ["EVENTS", "NoopEngine", "noop_pipeline", "trunnion_engines"]
