"""Define the body of OpenAI's Responses API as typed structs.

Unknown fields are refused. Fields that exist at OpenAI but mean nothing here are declared, so that they are refused by
name with a reason. Items of the input are decoded one by one, so that an error has the place of its item.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from trunnion_http.wire import decoder
from trunnion_http.wire.requests import Int32, StreamOptions, Strict

Status = Literal["in_progress", "completed", "incomplete"]


class InputText(Strict, tag_field="type", tag="input_text"):
    """Hold text that somebody said to the model."""

    text: str


class OutputText(Strict, tag_field="type", tag="output_text"):
    """Hold text that the model said."""

    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class Refusal(Strict, tag_field="type", tag="refusal"):
    """Hold the model's refusal."""

    refusal: str


class InputImage(Strict, tag_field="type", tag="input_image"):
    """Hold an image, as a URL."""

    image_url: str | None = None
    detail: str | None = None
    file_id: str | None = None


PARTS: Final[dict[str, type[Struct]]] = {
    "input_text": InputText,
    "output_text": OutputText,
    "refusal": Refusal,
    "input_image": InputImage,
}
"""Parts of messages and of outputs that are understood, by their type."""


class MessageItem(Strict):
    """Hold a message; the type may be left out."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]
    type: Literal["message"] | None = None
    id: str | None = None
    status: Status | None = None
    phase: str | None = None


class CallItem(Strict, tag_field="type", tag="function_call"):
    """Hold a call that the model made."""

    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None


class OutputItem(Strict, tag_field="type", tag="function_call_output"):
    """Hold what a call returned."""

    call_id: str
    output: str | list[dict[str, Any]]
    id: str | None = None
    status: Status | None = None


class Thought(Strict):
    """Hold text of a reasoning item."""

    text: str
    type: Literal["summary_text", "reasoning_text"]


class ReasoningItem(Strict, tag_field="type", tag="reasoning"):
    """Hold what the model thought."""

    summary: list[Thought] = field(default_factory=list)
    content: list[Thought] | None = None
    id: str | None = None
    status: Status | None = None
    encrypted_content: str | None = None


ITEMS: Final[dict[str, type[Struct]]] = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": OutputItem,
    "reasoning": ReasoningItem,
}
"""Items of the input that are understood, by their type."""


class TextFormat(Strict):
    """Hold ``text.format``."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    json_schema: dict[str, Any] | None = field(default=None, name="schema")
    description: str | None = None
    strict: bool | None = None


class TextOptions(Strict):
    """Hold ``text``."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Strict):
    """Hold ``reasoning``."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class Tool(Strict):
    """Hold a function's definition; tools that OpenAI itself runs are refused by their type."""

    type: str
    name: Annotated[str, Meta(min_length=1)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ResponsesBody(Strict):
    """Hold a ``/v1/responses`` body."""

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_output_tokens: Int32 | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: Int32 | None = None
    include: list[str] | None = None
    text: TextOptions | None = None
    reasoning: Reasoning | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    store: bool | None = None
    truncation: Literal["auto", "disabled"] | None = None
    prompt_cache_key: str | None = None
    # accepted as OpenAI does; they change no output
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    background: bool | None = None
    # refused by name, see REFUSED
    access_programs: Any = None
    background_options: Any = None
    context_management: Any = None
    conversation: Any = None
    image: Any = None
    max_tool_calls: Any = None
    moderation: Any = None
    previous_response_id: str | None = None
    prompt: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None


REFUSED: Final = {
    "access_programs": "there are none here",
    "background_options": "responses are not made in the background here",
    "context_management": "send the items that the model is to see",
    "conversation": "nothing is stored here; send the whole conversation as input",
    "image": "images are sent to the model as they are",
    "max_tool_calls": "it counts tools that the server runs, and none are run here",
    "moderation": "moderation is not part of this server",
    "previous_response_id": "nothing is stored here; send the whole conversation as input",
    "prompt": "prompts are not stored here; send instructions and input",
    "prompt_cache_options": "the engine's own prefix cache is always used",
    "prompt_cache_retention": "the engine's own prefix cache is always used",
}
"""Fields that exist at OpenAI and are refused here, with what to do instead."""

decode_responses: Final = decoder(ResponsesBody)
