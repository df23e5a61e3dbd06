"""Define the bodies of Anthropic's Messages API as typed structs.

Unknown fields are refused. Fields that exist at Anthropic but mean nothing here are declared, so that they are refused
by name with a reason. Content blocks are decoded one by one, so that an error has the place of its block.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from trunnion_http.wire import decoder
from trunnion_http.wire.requests import Int32, Strict


class CacheControl(Strict):
    """Hold ``cache_control``; the engine's own prefix cache needs no marks."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Strict, tag_field="type", tag="text"):
    """Hold text."""

    text: str
    cache_control: CacheControl | None = None
    citations: Any = None


class Base64Source(Strict, tag_field="type", tag="base64"):
    """Hold an image's bytes."""

    data: str
    media_type: str


class UrlSource(Strict, tag_field="type", tag="url"):
    """Say where an image lies."""

    url: str


class ImageBlock(Strict, tag_field="type", tag="image"):
    """Hold an image."""

    source: Base64Source | UrlSource
    cache_control: CacheControl | None = None


class ToolUseBlock(Strict, tag_field="type", tag="tool_use"):
    """Hold a call that the model made."""

    id: str
    name: str
    input: dict[str, Any]
    cache_control: CacheControl | None = None


class ToolResultBlock(Strict, tag_field="type", tag="tool_result"):
    """Hold what a call returned."""

    tool_use_id: str
    content: str | list[dict[str, Any]] = ""
    is_error: bool | None = None
    cache_control: CacheControl | None = None


class ThinkingBlock(Strict, tag_field="type", tag="thinking"):
    """Hold what the model thought."""

    thinking: str
    signature: str = ""


BLOCKS: Final[dict[str, type[Struct]]] = {
    "text": TextBlock,
    "image": ImageBlock,
    "tool_use": ToolUseBlock,
    "tool_result": ToolResultBlock,
    "thinking": ThinkingBlock,
}
"""Content blocks that are understood, by their type."""
RESULT_BLOCKS: Final = ("text", "image")
"""Blocks that a tool result may hold."""


class Message(Strict):
    """Hold one turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[dict[str, Any]]


class Tool(Strict):
    """Hold a tool's definition; tools that Anthropic itself runs are refused by their type."""

    name: Annotated[str, Meta(min_length=1)]
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: str | None = None
    strict: bool | None = None
    cache_control: CacheControl | None = None
    eager_input_streaming: bool | None = None
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    input_examples: Any = None


class ToolChoice(Strict):
    """Hold ``tool_choice``."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Metadata(Strict):
    """Hold ``metadata``."""

    user_id: str | None = None


class Thinking(Strict):
    """Hold ``thinking``."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Int32 | None = None
    display: str | None = None


class JsonFormat(Strict):
    """Hold ``output_config.format``."""

    type: Literal["json_schema"]
    json_schema: dict[str, Any] = field(name="schema")


class OutputConfig(Strict):
    """Hold ``output_config``."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class CountBody(Strict):
    """Hold a ``/v1/messages/count_tokens`` body."""

    messages: list[Message]
    model: str | None = None
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    speed: str | None = None


class MessagesBody(CountBody, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/v1/messages`` body."""

    max_tokens: Int32
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Int32 | None = None
    # accepted as Anthropic does; they change no output
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    # refused by name, see REFUSED
    container: Any = None
    context_management: Any = None
    diagnostics: Any = None
    inference_geo: Any = None
    mcp_servers: Any = None
    user_profile_id: Any = None
    workspace_id: Any = None


REFUSED: Final = {
    "container": "no code is run here",
    "context_management": "send the messages that the model is to see",
    "diagnostics": "ask the server's operator",
    "inference_geo": "the model runs where this server is",
    "mcp_servers": "connect to MCP servers yourself, and send their tools",
    "user_profile_id": "send metadata.user_id",
    "workspace_id": "this server has no workspaces",
}
"""Fields that exist at Anthropic and are refused here, with what to do instead."""

decode_messages: Final = decoder(MessagesBody)
decode_count: Final = decoder(CountBody)
