"""Translate OpenAI's wire format: bodies into core values, completions into JSON."""

from .decode import decode_chat, decode_completion, decode_embedding
from .encode import chat_response, completion_response, encode, usage_json
from .messages import check_messages, check_tools
from .requests import REFUSED, ChatBody, CompletionBody, EmbeddingBody, GenerationBody, StreamOptions
from .sampling import chat_sampling, completion_sampling, output_format, stream_options

__all__ = [
    "REFUSED",
    "ChatBody",
    "CompletionBody",
    "EmbeddingBody",
    "GenerationBody",
    "StreamOptions",
    "chat_response",
    "chat_sampling",
    "check_messages",
    "check_tools",
    "completion_response",
    "completion_sampling",
    "decode_chat",
    "decode_completion",
    "decode_embedding",
    "encode",
    "output_format",
    "stream_options",
    "usage_json",
]
