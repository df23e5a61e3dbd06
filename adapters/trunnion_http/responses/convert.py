"""Turn the body of OpenAI's Responses API into core values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.formats import JsonObject, JsonSchema, OutputFormat
from trunnion.requests import MessagesPrompt, SamplingParams
from trunnion_http.conversation import Asked, Conversation
from trunnion_http.wire import convert, refuse_fields

from .body import (
    ITEMS,
    PARTS,
    REFUSED,
    CallItem,
    InputImage,
    InputText,
    MessageItem,
    OutputItem,
    OutputText,
    ReasoningItem,
    ResponsesBody,
    Tool,
)

NAMES: Final = {
    "max_tokens": "max_output_tokens",
    "logprobs": "top_logprobs",
    "output_format": "text.format",
    "messages": "input",
}
"""What the core calls otherwise."""
LOGPROBS: Final = "message.output_text.logprobs"
_SAID_TO: Final = ("input_text", "input_image")
_SAID: Final = ("output_text", "refusal", "input_text")


def read(body: ResponsesBody) -> Asked:
    """Return what a body asks for.

    Raises:
        InvalidArgument: ``param`` names the field or the place of the item.
        UnsupportedFeature: It is something that cannot be honoured here.
    """
    _refuse(body)
    conversation = Conversation()
    if body.instructions:
        conversation.text("system", body.instructions, "instructions")
    if isinstance(body.input, str):
        conversation.text("user", body.input, "input")
    else:
        if not body.input:
            raise InvalidArgument("input must not be empty", param="input")
        for index, raw in enumerate(body.input):
            _item(raw, f"input[{index}]", conversation)
    tools = tuple(_tool(raw, f"tools[{index}]") for index, raw in enumerate(body.tools or ()))
    effort = None if body.reasoning is None else body.reasoning.effort
    return Asked(
        prompt=MessagesPrompt(
            messages=conversation.messages,  # type: ignore[arg-type]
            chat_template_kwargs=None if effort is None else {"reasoning_effort": effort},
        ),
        media=tuple(conversation.media),
        tools=tools,
        tool_choice=_tool_choice(body.tool_choice, [tool["function"]["name"] for tool in tools]),
        parallel_tool_calls=body.parallel_tool_calls,
        output_format=_format(body),
        names={**NAMES, **conversation.names},
    )


def sampling(body: ResponsesBody) -> SamplingParams:
    """Return the sampling parameters. Raises :class:`InvalidArgument` naming the core's field."""
    wanted = LOGPROBS in (body.include or ())
    if body.top_logprobs and not wanted:
        raise InvalidArgument(f'top_logprobs needs include: ["{LOGPROBS}"]', param="top_logprobs")
    return SamplingParams(
        max_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        logprobs=(body.top_logprobs or 0) if wanted else None,
    )


def _refuse(body: ResponsesBody) -> None:
    refuse_fields(body, REFUSED)
    odd = {
        "store": (body.store, "nothing is stored here; leave it out, or send store: false"),
        "background": (body.background, "read the answer, or stream it"),
        "truncation": (body.truncation == "auto", "send what fits into the model's context"),
        "text.verbosity": (
            body.text is not None and body.text.verbosity not in (None, "medium"),
            "ask for it in the instructions",
        ),
    }
    for name in ("summary", "generate_summary", "context", "mode"):
        wanted = None if body.reasoning is None else getattr(body.reasoning, name)
        odd[f"reasoning.{name}"] = (wanted is not None, "reasoning comes as the model makes it; leave it out")
    for name in ("include_usage", "continuous_usage_stats", "include_obfuscation"):
        asked = None if body.stream_options is None else getattr(body.stream_options, name)
        odd[f"stream_options.{name}"] = (asked, "leave it out")
    for name, (set_, instead) in odd.items():
        if set_:
            raise UnsupportedFeature(f"{name} is not supported: {instead}", param=name)
    if body.stream_options is not None and not body.stream:
        raise InvalidArgument("stream_options is only allowed with stream: true", param="stream_options")
    for name in body.include or ():
        if name != LOGPROBS:
            raise UnsupportedFeature(f"include: {name!r} is not supported; {LOGPROBS} is", param="include")


def _item(raw: dict[str, Any], place: str, conversation: Conversation) -> None:
    kind = raw.get("type", "message")
    if not isinstance(kind, str | None):
        raise InvalidArgument(f"{place}.type must be a string", param=f"{place}.type")
    kind = kind or "message"
    if kind not in ITEMS:
        msg = f"{place}: items of type {kind!r} are not supported; there are: {', '.join(ITEMS)}"
        raise UnsupportedFeature(msg, param=f"{place}.type")
    item = convert(raw, ITEMS[kind], place)
    if isinstance(item, MessageItem):
        _message(item, place, conversation)
    elif isinstance(item, CallItem):
        conversation.call(item.call_id, item.name, item.arguments, place)
    elif isinstance(item, OutputItem):
        _output(item, place, conversation)
    elif isinstance(item, ReasoningItem):
        if item.encrypted_content is not None:
            msg = f"{place}.encrypted_content is not supported: nobody here can read it; leave the item out"
            raise UnsupportedFeature(msg, param=f"{place}.encrypted_content")
        thoughts = item.content or item.summary
        conversation.reasoning("\n".join(thought.text for thought in thoughts), place)


def _message(item: MessageItem, place: str, conversation: Conversation) -> None:
    if item.phase is not None:
        msg = f"{place}.phase is not supported: chat templates know none; leave it out"
        raise UnsupportedFeature(msg, param=f"{place}.phase")
    if isinstance(item.content, str):
        conversation.text(item.role, item.content, place)
        return
    if not item.content:
        raise InvalidArgument(f"{place}.content must not be empty", param=f"{place}.content")
    allowed = _SAID if item.role == "assistant" else _SAID_TO
    for index, raw in enumerate(item.content):
        where = f"{place}.content[{index}]"
        part = _part(raw, where, allowed)
        if isinstance(part, InputImage):
            conversation.image(item.role, _url(part, where), place, field=f"{where}.image_url", detail=part.detail)
        else:
            text = part.text if isinstance(part, InputText | OutputText) else part.refusal
            conversation.text(item.role, text, place)


def _output(item: OutputItem, place: str, conversation: Conversation) -> None:
    if isinstance(item.output, str):
        conversation.result(item.call_id, item.output, place)
        return
    parts: list[dict[str, Any]] = []
    for index, raw in enumerate(item.output):
        where = f"{place}.output[{index}]"
        part = _part(raw, where, _SAID_TO)
        if isinstance(part, InputImage):
            parts.append(conversation.image_part(_url(part, where), f"{where}.image_url", len(parts)))
        else:
            parts.append({"type": "text", "text": part.text})
    conversation.result(item.call_id, parts, place)


def _part(raw: dict[str, Any], where: str, allowed: Sequence[str]) -> Any:
    kind = raw.get("type")
    if not isinstance(kind, str) or kind not in allowed:
        msg = f"{where}: parts of type {kind!r} are not supported here; there are: {', '.join(allowed)}"
        raise UnsupportedFeature(msg, param=f"{where}.type")
    return convert(raw, PARTS[kind], where)


def _url(part: InputImage, where: str) -> str:
    if part.file_id is not None:
        msg = f"{where}.file_id is not supported: files are not stored here; send image_url, which may be a data: URL"
        raise UnsupportedFeature(msg, param=f"{where}.file_id")
    if part.image_url is None:
        raise InvalidArgument(f"missing required parameter: {where}.image_url", param=f"{where}.image_url")
    return part.image_url


def _tool(raw: dict[str, Any], where: str) -> dict[str, Any]:
    if raw.get("type") != "function":
        msg = f"{where}.type: tools of type {raw.get('type')!r} are not run here; define functions"
        raise UnsupportedFeature(msg, param=f"{where}.type")
    tool = convert(raw, Tool, where)
    function: dict[str, Any] = {"name": tool.name}
    for name in ("description", "parameters", "strict"):
        value = getattr(tool, name)
        if value is not None:
            function[name] = value
    return {"type": "function", "function": function}


def _tool_choice(choice: str | dict[str, Any] | None, names: Sequence[str]) -> str | dict[str, Any] | None:
    if isinstance(choice, dict):
        name = choice.get("name")
        if choice.get("type") != "function" or not isinstance(name, str) or len(choice) != len(("type", "name")):
            msg = 'tool_choice must be none, auto, required or {"type": "function", "name": ...}'
            raise UnsupportedFeature(msg, param="tool_choice")
        if name not in names:
            raise InvalidArgument(f"tool_choice names {name!r}, which is not among tools", param="tool_choice")
        return {"type": "function", "function": {"name": name}}
    if choice not in (None, "none", "auto", "required"):
        msg = f"tool_choice must be none, auto, required or a named function, not {choice!r}"
        raise InvalidArgument(msg, param="tool_choice")
    if choice == "required" and not names:
        raise InvalidArgument("tool_choice: required needs tools", param="tool_choice")
    return choice


def _format(body: ResponsesBody) -> OutputFormat | None:
    wanted = None if body.text is None else body.text.format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return JsonObject()
    for name, value in (("name", wanted.name), ("schema", wanted.json_schema)):
        if value is None:
            raise InvalidArgument(f"missing required parameter: text.format.{name}", param=f"text.format.{name}")
    assert wanted.json_schema is not None
    return JsonSchema(schema=wanted.json_schema, name=wanted.name or "", strict=wanted.strict is not False)
