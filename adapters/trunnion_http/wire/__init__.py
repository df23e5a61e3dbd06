"""Translate OpenAI's wire format: bodies into core values, completions into JSON."""

from .decode import (
    convert,
    decode_chat,
    decode_completion,
    decode_detokenize,
    decode_embedding,
    decode_tokenize,
    decoder,
    not_json,
)
from .encode import chat_response, completion_response, encode, usage_json
from .messages import check_messages, check_tools, refuse_fields
from .requests import (
    REFUSED,
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    EmbeddingBody,
    GenerationBody,
    StreamOptions,
    TokenizeBody,
)
from .sampling import chat_sampling, completion_sampling, output_format, stream_options

__all__ = [
    "REFUSED",
    "ChatBody",
    "CompletionBody",
    "DetokenizeBody",
    "EmbeddingBody",
    "GenerationBody",
    "StreamOptions",
    "TokenizeBody",
    "chat_response",
    "chat_sampling",
    "check_messages",
    "check_tools",
    "completion_response",
    "completion_sampling",
    "convert",
    "decode_chat",
    "decode_completion",
    "decode_detokenize",
    "decode_embedding",
    "decode_tokenize",
    "decoder",
    "encode",
    "not_json",
    "output_format",
    "refuse_fields",
    "stream_options",
    "usage_json",
]
