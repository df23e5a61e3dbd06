"""List the routes that are served, with the handler of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from .administration import load_adapter, reset_prefix_cache, sleep, unload_adapter, wake
from .anthropic.handlers import count_tokens, messages
from .call import Call
from .chat import chat_completions
from .completions import completions
from .embeddings import embeddings
from .listing import health, list_models, ready, version
from .metrics import metrics
from .openapi import openapi
from .responses.handlers import responses
from .scoring import classify, rerank, score
from .tokenizing import detokenize, tokenize
from .transcription import TRANSCRIPTIONS, transcriptions

if TYPE_CHECKING:
    from .app import App

Handler = Callable[["App", Call], Awaitable[None]]

ROUTES: Final[dict[str, tuple[str, Handler]]] = {
    "/v1/chat/completions": ("POST", chat_completions),
    "/v1/completions": ("POST", completions),
    "/v1/embeddings": ("POST", embeddings),
    **dict.fromkeys(("/v1/score", "/score"), ("POST", score)),
    **dict.fromkeys(("/v1/rerank", "/v2/rerank", "/rerank"), ("POST", rerank)),
    **dict.fromkeys(("/v1/classify", "/classify"), ("POST", classify)),
    TRANSCRIPTIONS: ("POST", transcriptions),
    "/v1/messages": ("POST", messages),
    "/v1/messages/count_tokens": ("POST", count_tokens),
    "/v1/responses": ("POST", responses),
    "/v1/load_lora_adapter": ("POST", load_adapter),
    "/v1/unload_lora_adapter": ("POST", unload_adapter),
    "/sleep": ("POST", sleep),
    "/wake_up": ("POST", wake),
    "/reset_prefix_cache": ("POST", reset_prefix_cache),
    "/v1/models": ("GET", list_models),
    "/tokenize": ("POST", tokenize),
    "/detokenize": ("POST", detokenize),
    "/health": ("GET", health),
    "/ready": ("GET", ready),
    "/version": ("GET", version),
    "/metrics": ("GET", metrics),
    "/openapi.json": ("GET", openapi),
}
OPEN: Final = frozenset({"/health", "/ready", "/version", "/metrics", "/openapi.json"})
"""Paths that never ask for a key: probes and tools have none."""
ADMIN: Final = frozenset(
    {"/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/sleep", "/wake_up", "/reset_prefix_cache"}
)
"""Paths that change the engine for everybody, and ask for an administrator's key."""
