"""List the routes: what each takes and answers. Kept by hand; a test holds the list to the routes that are served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from msgspec import Struct

from trunnion_http.administration import LoadAdapterBody, OrderBody, SleepBody, UnloadAdapterBody
from trunnion_http.anthropic.body import CountBody, MessagesBody
from trunnion_http.responses.body import ResponsesBody
from trunnion_http.wire import ChatBody, CompletionBody, DetokenizeBody, EmbeddingBody, TokenizeBody
from trunnion_http.wire.scoring import ClassifyBody, RerankBody, ScoreBody

from .answers import Schema
from .forms import AUDIO_FORM


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Describe a route.

    Attributes:
        summary: What it does, in one line.
        answer: The component that describes its answer.
        body: What its decoder takes; None for a route without a JSON body.
        form: The schema of the form that it takes in place of one.
        streams: Whether it answers with server-sent events where the body asks for a stream.
        error: The component of its errors.
        failing: Whether it answers with 503 and ``answer``, which is no error but a report.
        media: The media type of its answer.
        text: Whether it answers with bare text where the body asks for it.
    """

    summary: str
    answer: str
    body: type[Struct] | None = None
    form: Schema | None = None
    streams: bool = False
    error: Literal["Error", "AnthropicError"] = "Error"
    failing: bool = False
    media: str = "application/json"
    text: bool = False

    @property
    def method(self) -> str:
        """Return the method, as OpenAPI writes it."""
        return "post" if self.takes else "get"

    @property
    def takes(self) -> bool:
        """Tell whether it takes a body."""
        return self.body is not None or self.form is not None


DESCRIBED: Final[dict[str, Route]] = {
    "/v1/chat/completions": Route(
        summary="Answer a conversation", body=ChatBody, answer="ChatCompletion", streams=True
    ),
    "/v1/completions": Route(summary="Complete prompts", body=CompletionBody, answer="Completion", streams=True),
    "/v1/embeddings": Route(summary="Embed texts", body=EmbeddingBody, answer="Embeddings"),
    "/v1/audio/transcriptions": Route(
        summary="Write down what is spoken in an audio file", form=AUDIO_FORM, answer="Transcription", text=True
    ),
    **dict.fromkeys(
        ("/v1/score", "/score"), Route(summary="Score how well texts match", body=ScoreBody, answer="Scores")
    ),
    **dict.fromkeys(
        ("/v1/rerank", "/v2/rerank", "/rerank"),
        Route(summary="Order documents by how well they answer a query", body=RerankBody, answer="Ranking"),
    ),
    **dict.fromkeys(
        ("/v1/classify", "/classify"),
        Route(summary="Give texts the probabilities of a model's labels", body=ClassifyBody, answer="Labels"),
    ),
    "/v1/messages": Route(
        summary="Answer a conversation, as Anthropic's API does",
        body=MessagesBody,
        answer="AnthropicMessage",
        streams=True,
        error="AnthropicError",
    ),
    "/v1/messages/count_tokens": Route(
        summary="Count the tokens of a conversation", body=CountBody, answer="AnthropicCount", error="AnthropicError"
    ),
    "/v1/responses": Route(
        summary="Answer items, as OpenAI's Responses API does; nothing is stored",
        body=ResponsesBody,
        answer="Response",
        streams=True,
    ),
    "/v1/load_lora_adapter": Route(
        summary="Load a LoRA adapter into every replica; needs an administrator's key",
        body=LoadAdapterBody,
        answer="Model",
    ),
    "/v1/unload_lora_adapter": Route(
        summary="Unload a LoRA adapter; needs an administrator's key", body=UnloadAdapterBody, answer="Deleted"
    ),
    "/sleep": Route(
        summary="Give the engines' memory back; needs an administrator's key", body=SleepBody, answer="Done"
    ),
    "/wake_up": Route(summary="Wake the engines; needs an administrator's key", body=OrderBody, answer="Done"),
    "/reset_prefix_cache": Route(
        summary="Forget cached prefixes; needs an administrator's key", body=OrderBody, answer="Done"
    ),
    "/v1/models": Route(summary="List the models and adapters", answer="Models"),
    "/v1/models/{model}": Route(summary="Describe a model or an adapter", answer="Model"),
    "/tokenize": Route(summary="Make token ids of a prompt or a conversation", body=TokenizeBody, answer="Tokens"),
    "/detokenize": Route(summary="Make text of token ids", body=DetokenizeBody, answer="Text"),
    "/health": Route(summary="Tell whether every model works", answer="Health", failing=True),
    "/ready": Route(summary="Tell whether requests should be sent here", answer="Ready", failing=True),
    "/version": Route(summary="Tell the versions of Trunnion and of the engines", answer="Version"),
    "/metrics": Route(summary="Tell figures to Prometheus", answer="Figures", media="text/plain"),
    "/openapi.json": Route(summary="Describe the routes", answer="OpenAPI"),
}
"""The routes, by their path."""
