"""Define the bodies of OpenAI's API as typed structs, with the extensions that vLLM's server made common.

One pass of msgspec decodes and validates. Unknown fields are refused. Fields that exist at OpenAI but mean nothing
here are declared, so that they are refused by name with a reason instead of being dropped in silence.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Strict(Struct, forbid_unknown_fields=True, kw_only=True):
    """Refuse unknown fields."""


class StreamOptions(Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """Hold ``stream_options``."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None
    continuous_usage_stats: bool | None = None


class StructuredOutputs(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold vLLM's ``structured_outputs``: exactly one of its fields."""

    json: str | dict[str, Any] | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None


class JsonSchemaFormat(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold ``response_format.json_schema``."""

    name: str
    json_schema: dict[str, Any] | None = field(default=None, name="schema")
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold ``response_format``."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


class GenerationBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold what chat and completions share."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Int32 | None = None
    max_tokens: Int32 | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: Int64 | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    # vLLM's extensions
    top_k: Int32 | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: Int32 | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[TokenId] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    priority: Int32 | None = None
    cache_salt: str | None = None
    request_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    # what one engine alone understands, by engine name
    extra: dict[str, dict[str, Any]] | None = None


class ChatBody(GenerationBody, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/v1/chat/completions`` body. Messages stay loosely typed: the chat template judges their content."""

    messages: list[dict[str, Any]]
    max_completion_tokens: Int32 | None = None
    logprobs: bool | None = None
    top_logprobs: Int32 | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # accepted as OpenAI does; they change no output
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: Literal["auto", "default"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # refused by name, see REFUSED
    modalities: list[str] | None = None
    verbosity: str | None = None
    audio: Any = None
    functions: Any = None
    function_call: Any = None
    moderation: Any = None
    prediction: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    web_search_options: Any = None


class CompletionBody(GenerationBody, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/v1/completions`` body."""

    prompt: str | list[str | TokenId | list[TokenId]]
    logprobs: Int32 | None = None
    add_special_tokens: bool | None = None
    best_of: Int32 | None = None
    echo: bool | None = None
    suffix: str | None = None


class EmbeddingBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/v1/embeddings`` body."""

    input: str | list[str | TokenId | list[TokenId]]
    model: str | None = None
    dimensions: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None


class TokenizeBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/tokenize`` body: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: str | None = None


class DetokenizeBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/detokenize`` body."""

    tokens: list[TokenId]
    model: str | None = None


REFUSED: Final = {
    "audio": "this server answers in text",
    "functions": "use tools",
    "function_call": "use tool_choice",
    "moderation": "moderation is not part of this server",
    "prediction": "predicted outputs are not part of this server",
    "prompt_cache_options": "the engine's own prefix cache is always used",
    "prompt_cache_retention": "the engine's own prefix cache is always used",
    "web_search_options": "web search is not part of this server",
}
"""Chat fields that exist at OpenAI and are refused here, with what to do instead."""
