"""Write the body of a request, in the words of the chat or of the completions API. Nothing is left out in silence."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.formats import Choice, Grammar, JsonObject, JsonSchema, OutputFormat, Regex
from trunnion.media import wire_messages, wire_part
from trunnion.requests import GenerateRequest, MediaPart, MessagesPrompt, SamplingParams, TextPrompt, TokensPrompt

from .capabilities import Dialect

# Fields that bear the same name on the wire; None and () leave the endpoint's own default.
_SAME: Final = (
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "top_k",
    "min_p",
    "min_tokens",
    "repetition_penalty",
    "prompt_logprobs",
)
_OWN: Final = frozenset({"model", "messages", "prompt", "stream", "stream_options", "n", "max_tokens"})
"""What ``extra_body`` and ``extra["openai"]`` may not hold, because the request says it otherwise."""


class WireRequest(NamedTuple):
    """Hold what is sent: the API's path below base_url, the body, and whether the answer is a stream.

    With ``files``, by field name, it is sent as a form: each a name, the bytes and their mime type.
    """

    path: str
    body: dict[str, Any]
    stream: bool
    chat: bool
    files: Mapping[str, tuple[str, bytes, str]] | None = None


class BodyWriter:
    """Write bodies for one endpoint. Shared by all its requests."""

    def __init__(
        self,
        model: str,
        dialect: Dialect,
        *,
        stream_usage: bool = True,
        extra: Mapping[str, Any],
        context: int | None = None,
    ) -> None:
        self._model = model
        self._context = context
        self._dialect = dialect
        self._stream_usage = stream_usage
        self._extra = checked_extra(extra, "extra_body")

    def write(self, request: GenerateRequest) -> WireRequest:
        """Return the request on the wire.

        Raises:
            UnsupportedFeature: A field has no place in this API or dialect; ``param`` names it.
            InvalidArgument: ``extra["openai"]`` holds what the request says otherwise.
        """
        sampling = request.sampling
        # vLLM refuses prompt_logprobs for streams; the answer comes whole, whatever delivery was asked for.
        stream = request.delivery == "delta" and sampling.prompt_logprobs is None
        body: dict[str, Any] = {"model": request.adapter or self._model}
        chat = isinstance(request.prompt, MessagesPrompt)
        if chat:
            self._chat(request, request.prompt, body)  # type: ignore[arg-type]
        else:
            self._completion(request, body)
        self._sampling(sampling, body)
        if request.output_format is not None:
            _write_format(request.output_format, body)
        if request.priority:
            body["priority"] = request.priority
        if request.cache_salt is not None:
            body["cache_salt"] = request.cache_salt
        if stream:
            body["stream"] = True
            if self._stream_usage:
                body["stream_options"] = {"include_usage": True}
        if self._extra:
            body = {**self._extra, **body}
        if request.extra:
            body.update(checked_extra(request.extra.get("openai", {}), "extra.openai"))
        return WireRequest("/chat/completions" if chat else "/completions", body, stream, chat)

    def _chat(self, request: GenerateRequest, prompt: MessagesPrompt, body: dict[str, Any]) -> None:
        messages: Sequence[Mapping[str, Any]] = prompt.messages
        if request.media:
            messages = wire_messages(messages, request.media, _write_media)
        body["messages"] = [_on_the_wire(message) if message.get("tool_calls") else message for message in messages]
        if not prompt.add_generation_prompt:
            self._extra_field("add_generation_prompt", value=False, body=body)
        if prompt.continue_final_message:
            self._extra_field("continue_final_message", value=True, body=body)
        if prompt.chat_template is not None:
            self._extra_field("chat_template", value=prompt.chat_template, body=body)
        if prompt.chat_template_kwargs:
            self._extra_field("chat_template_kwargs", value=dict(prompt.chat_template_kwargs), body=body)
        if request.tools:
            body["tools"] = list(request.tools)
        if request.tool_choice is not None:
            body["tool_choice"] = request.tool_choice
        if request.parallel_tool_calls is not None:
            body["parallel_tool_calls"] = request.parallel_tool_calls
        sampling = request.sampling
        if sampling.max_tokens is not None:
            # OpenAI's newer models refuse max_tokens; everyone else knows it, and not all its newer name.
            body["max_completion_tokens" if self._dialect == "openai" else "max_tokens"] = sampling.max_tokens
        if sampling.logprobs is not None:
            body["logprobs"] = True
            body["top_logprobs"] = sampling.logprobs

    def _completion(self, request: GenerateRequest, body: dict[str, Any]) -> None:
        prompt = request.prompt
        if isinstance(prompt, TextPrompt):
            body["prompt"] = prompt.text
            if not prompt.add_special_tokens:
                self._extra_field("add_special_tokens", value=False, body=body)
        elif isinstance(prompt, TokensPrompt):
            body["prompt"] = list(prompt.token_ids)
        for name in ("tools", "tool_choice", "media"):
            if getattr(request, name):
                raise UnsupportedFeature(f"the completions API has no {name}; send messages", param=name)
        if self._dialect == "openai" and request.output_format is not None:
            raise UnsupportedFeature(
                "OpenAI's completions API has no output format; send messages", param="output_format"
            )
        sampling = request.sampling
        if sampling.max_tokens is not None:
            body["max_tokens"] = sampling.max_tokens
        elif isinstance(prompt, TokensPrompt) and self._context is not None:
            body["max_tokens"] = max(1, self._context - len(prompt.token_ids))  # to the end of the context
        else:
            raise InvalidArgument(
                "the completions API ends after 16 tokens where max_tokens is not set; set it, or send messages",
                param="max_tokens",
            )
        if sampling.logprobs is not None:
            body["logprobs"] = sampling.logprobs

    def _extra_field(self, name: str, *, value: object, body: dict[str, Any]) -> None:
        if self._dialect == "openai":
            message = f"{name} is no field of OpenAI's API; set dialect to what the endpoint is"
            raise UnsupportedFeature(message, param=name)
        body[name] = value

    @staticmethod
    def _sampling(sampling: SamplingParams, body: dict[str, Any]) -> None:
        for name in _SAME:
            value = getattr(sampling, name)
            if value is not None:
                body[name] = value
        if sampling.n != 1:
            body["n"] = sampling.n
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if sampling.stop_token_ids:
            body["stop_token_ids"] = list(sampling.stop_token_ids)
        if sampling.include_stop_str_in_output:
            body["include_stop_str_in_output"] = True
        if sampling.ignore_eos:
            body["ignore_eos"] = True
        if not sampling.skip_special_tokens:
            body["skip_special_tokens"] = False
        if sampling.logit_bias:
            body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}


def checked_extra(extra: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return further fields of the body. Raises :class:`InvalidArgument` for those that the request itself holds."""
    for name in extra:
        if name in _OWN or not isinstance(name, str):
            raise InvalidArgument(
                f"{where} may not hold {name!r}; the request has a field of its own for it", param=f"{where}.{name}"
            )
    return dict(extra)


def _on_the_wire(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message with the arguments of its tool calls as JSON text; chat templates take objects as well."""
    calls = []
    for call in message["tool_calls"]:
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping) and not isinstance(function.get("arguments", ""), str):
            call = {**call, "function": {**function, "arguments": json.dumps(function["arguments"])}}  # noqa: PLW2901
        calls.append(call)
    return {**message, "tool_calls": calls}


def _write_format(wanted: OutputFormat, body: dict[str, Any]) -> None:
    """Write the output format: OpenAI's response_format, or vLLM's structured_outputs."""
    match wanted:
        case JsonObject():
            body["response_format"] = {"type": "json_object"}
        case JsonSchema(schema=schema, name=name, strict=strict):
            held = {"name": name, "schema": dict(schema), "strict": strict}
            body["response_format"] = {"type": "json_schema", "json_schema": held}
        case Regex(pattern=pattern):
            body["structured_outputs"] = {"regex": pattern}
        case Choice(choices=choices):
            body["structured_outputs"] = {"choice": list(choices)}
        case Grammar(grammar=grammar):
            body["structured_outputs"] = {"grammar": grammar}


def _write_media(part: MediaPart) -> dict[str, Any]:
    """Return a media part in OpenAI's wire format, which has a form of its own for the data of audio."""
    if part.type != "audio" or part.data is None:
        return wire_part(part)
    kind = (part.mime_type or "audio/wav").partition("/")[2]
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(part.data).decode(), "format": kind}}
