"""Give, for each field of a request, values that it would not have by default."""

from __future__ import annotations

from typing import Any, Final

from trunnion.formats import Choice, Grammar, JsonObject, JsonSchema, Regex
from trunnion.requests import ChatMessage, MediaPart

TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CITY: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
}
_HELLO: Final[ChatMessage] = {"role": "user", "content": "Hello"}
_CALL: Final[dict[str, Any]] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
}
CONVERSATIONS: Final[dict[str, list[ChatMessage]]] = {
    "content as a list of text parts": [
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": "there"}]}
    ],
    "a tool call without content, and a tool's message at the end": [
        _HELLO,
        {"role": "assistant", "content": None, "tool_calls": [_CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": "It rains."},
    ],
    "an assistant's message without content": [_HELLO, {"role": "assistant", "content": None}, _HELLO],
    "an assistant's message at the end": [_HELLO, {"role": "assistant", "content": "Hello"}],
    "a user's message without content": [{"role": "user"}],
}
"""Conversations that clients send, odd ones among them: each is answered or refused."""
EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    "sampling.min_tokens": {"min_tokens": 2},
    "sampling.ignore_eos": {"ignore_eos": True},
    "sampling.n": {"n": 2},
    "sampling.seed": {"seed": 1},
    "sampling.temperature": {"temperature": 0.5},
    "sampling.max_tokens": {"max_tokens": 3},
    "sampling.top_p": {"top_p": 0.5},
    "sampling.top_k": {"top_k": 3},
    "sampling.min_p": {"min_p": 0.1},
    "sampling.stop": {"stop": ("x",)},
    "sampling.include_stop_str_in_output": {"include_stop_str_in_output": True},
    "sampling.stop_token_ids": {"stop_token_ids": (5,)},
    "sampling.presence_penalty": {"presence_penalty": 1.0},
    "sampling.frequency_penalty": {"frequency_penalty": 1.0},
    "sampling.repetition_penalty": {"repetition_penalty": 1.5},
    "sampling.logit_bias": {"logit_bias": {5: 1.0}},
    "sampling.logprobs": {"logprobs": 1},
    "sampling.prompt_logprobs": {"prompt_logprobs": 1},
    "sampling.skip_special_tokens": {"skip_special_tokens": False},
    "output_format.json_object": {"output_format": JsonObject()},
    "output_format.json_schema": {"output_format": JsonSchema(schema=CITY)},
    "output_format.regex": {"output_format": Regex(pattern="a+")},
    "output_format.choice": {"output_format": Choice(choices=("a", "b"))},
    "output_format.grammar": {"output_format": Grammar(grammar='root ::= "a"')},
    "media.image": {"media": (MediaPart(type="image", data=b"x", mime_type="image/png"),)},
    "media.audio": {"media": (MediaPart(type="audio", data=b"x", mime_type="audio/wav"),)},
    "media.video": {"media": (MediaPart(type="video", data=b"x", mime_type="video/mp4"),)},
    "tools": {"tools": (TOOL,)},
    "tool_choice": {"tools": (TOOL,), "tool_choice": "required"},
    "parallel_tool_calls": {"tools": (TOOL,), "parallel_tool_calls": False},
    "adapter": {"adapter": "an-adapter"},
    "priority": {"priority": 1},
    "cache_salt": {"cache_salt": "salt"},
    "handoff": {"handoff": {"state": 1}},
}
"""Fields of a request that uses a feature, by feature."""
