"""Put a pipeline's plan into words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import TrunnionError
from .fetch import shown
from .requests import GenerateRequest, MessagesPrompt, Prompt, TextPrompt, TokensPrompt

if TYPE_CHECKING:
    from .pipeline import Pipeline

_SAMPLES: tuple[Prompt, ...] = (
    MessagesPrompt(messages=({"role": "user", "content": "?"},)),
    TextPrompt(text="?"),
    TokensPrompt(token_ids=(0,)),
)


def explain(pipeline: Pipeline, request: GenerateRequest | None) -> str:
    """Return a few lines: engine, model, and the chain of stages for each prompt kind (or for the one request)."""
    info = pipeline.info
    limit = f", context {info.context_length} tokens" if info.context_length else ""
    library = f" ({info.library})" if info.library else ""
    lines = [f"engine {info.engine}{library}, model {info.model}{limit}, useful concurrency {info.concurrency}"]
    reference = pipeline.spec.engine.model
    if reference and any(stage.name == "fetch model" for stage in pipeline.startup.stages):
        lines.append(f"fetched from {shown(reference)}")
    if info.adapters:
        lines.append(f"adapters: {', '.join(info.adapters)}")
    if hooks := pipeline.registry.hooks_origins():
        lines.append(f"hooks in force: {', '.join(map(str, hooks))}")
    requests = [request] if request is not None else [GenerateRequest(prompt=prompt) for prompt in _SAMPLES]
    for one in requests:
        kind = one.prompt.kind
        try:
            plan = pipeline.plan(one)
        except TrunnionError as error:
            lines.append(f"{kind}: refused: {error}")
            continue
        steps = [kind, *plan.request_stages, f"[{info.engine}: {plan.sends}]", *plan.stream_stages]
        lines.append(" -> ".join(steps))
        if plan.supplied:
            lines.append(f"  supplied by stages: {', '.join(sorted(plan.supplied))}")
    return "\n".join(lines)
