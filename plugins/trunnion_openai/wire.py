"""Read what OpenAI-compatible endpoints answer, as typed structs: one pass of msgspec decodes and checks.

Fields that nothing here uses are not decoded. What endpoints leave out, or write as null, has a default.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from trunnion.errors import InternalError

T = TypeVar("T")


class TokenDetails(Struct, gc=False):
    """Hold the details of ``usage``."""

    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class UsageBody(Struct, gc=False):
    """Hold ``usage``."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: TokenDetails | None = None
    completion_tokens_details: TokenDetails | None = None


class FunctionPiece(Struct, gc=False):
    """Hold the function of a tool call, or a piece of it."""

    name: str | None = None
    arguments: str | None = None


class ToolCallPiece(Struct, gc=False):
    """Hold a tool call, or a piece of it."""

    index: int | None = None
    id: str | None = None
    function: FunctionPiece | None = None


class Message(Struct, gc=False):
    """Hold a message, or a delta of one. ``reasoning`` is vLLM's newer name for ``reasoning_content``."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPiece] | None = None


class ChatLogprob(Struct):
    """Hold a token with its log probability, as the chat API writes it."""

    token: str
    logprob: float
    top_logprobs: list[ChatLogprob] | None = None


class ChatLogprobs(Struct):
    """Hold the log probabilities of a chat choice."""

    content: list[ChatLogprob] | None = None


class CompletionLogprobs(Struct):
    """Hold the log probabilities of a completions choice."""

    tokens: list[str] = []
    token_logprobs: list[float | None] = []
    top_logprobs: list[dict[str, float] | None] | None = None


class ChatChoice(Struct):
    """Hold a choice of the chat API: ``message`` in a whole answer, ``delta`` in a stream."""

    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: ChatLogprobs | None = None
    token_ids: list[int] | None = None


class TextChoice(Struct):
    """Hold a choice of the completions API."""

    index: int = 0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    logprobs: CompletionLogprobs | None = None
    token_ids: list[int] | None = None
    prompt_logprobs: list[Any] | None = None


class ChatBody(Struct):
    """Hold an answer of the chat API, or an event of its stream."""

    choices: list[ChatChoice] | None = None
    usage: UsageBody | None = None
    error: Any = None
    prompt_logprobs: list[Any] | None = None


class TextBody(Struct):
    """Hold an answer of the completions API, or an event of its stream."""

    choices: list[TextChoice] | None = None
    usage: UsageBody | None = None
    error: Any = None


class EmbeddingItem(Struct):
    """Hold one vector."""

    embedding: list[float]
    index: int | None = None


class EmbeddingBody(Struct):
    """Hold an answer of the embeddings API."""

    data: list[EmbeddingItem] | None = None
    usage: UsageBody | None = None
    error: Any = None


class ScoreItem(Struct, gc=False):
    """Hold one score."""

    score: float
    index: int | None = None


class ScoreBody(Struct):
    """Hold an answer of vLLM's score API."""

    data: list[ScoreItem] | None = None
    usage: UsageBody | None = None
    error: Any = None


class LabelItem(Struct):
    """Hold the probabilities of one input; ``labels`` names them where the endpoint does."""

    probs: list[float]
    label: str | None = None
    labels: list[str] | None = None
    index: int | None = None


class LabelBody(Struct):
    """Hold an answer of vLLM's classification API."""

    data: list[LabelItem] | None = None
    usage: UsageBody | None = None
    error: Any = None


class HeardUsage(Struct):
    """Hold what a transcription cost, where it is counted in tokens and not in seconds."""

    input_tokens: int | None = None
    output_tokens: int | None = None


class TranscriptBody(Struct):
    """Hold an answer of the transcription API."""

    text: str | None = None
    usage: HeardUsage | None = None
    error: Any = None


class ModelCard(Struct):
    """Hold an entry of the list of models; vLLM tells the context length, and the parent of an adapter."""

    id: str
    owned_by: str | None = None
    max_model_len: int | None = None
    parent: str | None = None


class ModelList(Struct):
    """Hold the list of models."""

    data: list[ModelCard] | None = None
    error: Any = None


chat_decoder: Final = msgspec.json.Decoder(ChatBody)
text_decoder: Final = msgspec.json.Decoder(TextBody)
embedding_decoder: Final = msgspec.json.Decoder(EmbeddingBody)
score_decoder: Final = msgspec.json.Decoder(ScoreBody)
label_decoder: Final = msgspec.json.Decoder(LabelBody)
transcript_decoder: Final = msgspec.json.Decoder(TranscriptBody)
models_decoder: Final = msgspec.json.Decoder(ModelList)
any_decoder: Final = msgspec.json.Decoder()

DECODING_ERRORS: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def wrong_body(where: str, data: bytes, error: Exception) -> InternalError:
    """Return the error for bytes that are not what the API answers; it shows where they start."""
    start = data[:120].decode("utf-8", "replace").strip()
    kind = "JSON of another shape" if isinstance(error, msgspec.ValidationError) else "no valid JSON"
    return InternalError(
        f"{where} answered with {kind} ({error}): {start!r}; check that base_url is an OpenAI-compatible API",
        details={"body": start},
    )


def decode(decoder: msgspec.json.Decoder[T], data: bytes, where: str) -> T:
    """Return decoded bytes. Raises :class:`InternalError` that says how they are wrong."""
    try:
        return decoder.decode(data)
    except DECODING_ERRORS as error:
        raise wrong_body(where, data, error) from error
