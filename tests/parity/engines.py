"""Name the engines that load the demo model. A further engine joins the parity table by a line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trunnion_demo import PROMPTS, adapter_paths, model_path


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCase:
    """Hold how an engine is opened on the demo model; ``served``: over HTTP, where vLLM's own server holds it."""

    engine: str
    model: str = str(model_path())
    served: bool = False
    config: dict[str, Any] = field(default_factory=dict)


PLAIN = next(prompt for prompt in PROMPTS if not prompt.tools and len(prompt.expected) > 30 and prompt.adapted)
ADAPTERS = {name: str(path) for name, path in adapter_paths().items()}

CASES = [
    EngineCase(engine="vllm", config={"adapters": ADAPTERS, "max_model_len": 1024, "enforce_eager": True}),
    EngineCase(engine="transformers", config={"adapters": ADAPTERS, "max_model_len": 1024, "threads": 1}),
    EngineCase(engine="openai", model="demo", served=True),
]
