"""Turn the bodies of Anthropic's Messages API into core values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.formats import JsonSchema
from trunnion.requests import MessagesPrompt, SamplingParams
from trunnion_http.conversation import Asked, Conversation
from trunnion_http.wire import convert, refuse_fields

from .body import (
    BLOCKS,
    REFUSED,
    RESULT_BLOCKS,
    CountBody,
    ImageBlock,
    Message,
    MessagesBody,
    TextBlock,
    ThinkingBlock,
    Tool,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)

NAMES: Final = {"stop": "stop_sequences", "output_format": "output_config.format"}
"""What the core calls otherwise."""
_BY_ROLE: Final = {
    "user": ("text", "image", "tool_result"),
    "assistant": ("text", "tool_use", "thinking"),
    "system": ("text",),
}
_CHOICES: Final = {"auto": "auto", "any": "required", "none": "none"}


def read(body: CountBody) -> Asked:
    """Return what a body asks for.

    Raises:
        InvalidArgument: ``param`` names the field or the place of the block.
        UnsupportedFeature: It is something that cannot be honoured here.
    """
    _refuse(body)
    conversation = Conversation()
    _system(body.system, conversation)
    if not body.messages:
        raise InvalidArgument("messages must not be empty", param="messages")
    for index, message in enumerate(body.messages):
        _message(message, f"messages[{index}]", conversation)
    going_on = body.messages[-1].role == "assistant"
    if going_on and "tool_calls" in conversation.messages[-1]:
        place = f"messages[{len(body.messages) - 1}]"
        msg = f"{place}: the conversation ends with a tool_use block; send its tool_result in a user's message"
        raise InvalidArgument(msg, param=place)
    tools = tuple(_tool(tool, f"tools[{index}]") for index, tool in enumerate(body.tools or ()))
    choice, parallel = _tool_choice(body, [tool["function"]["name"] for tool in tools])
    wanted = None if body.output_config is None else body.output_config.format
    return Asked(
        prompt=MessagesPrompt(
            messages=conversation.messages,  # type: ignore[arg-type]
            add_generation_prompt=not going_on,
            continue_final_message=going_on,
            chat_template_kwargs=_template_options(body),
        ),
        media=tuple(conversation.media),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        output_format=None if wanted is None else JsonSchema(schema=wanted.json_schema),
        names={**NAMES, **conversation.names},
    )


def sampling(body: MessagesBody) -> SamplingParams:
    """Return the sampling parameters. Raises :class:`InvalidArgument` naming the core's field."""
    return SamplingParams(
        max_tokens=body.max_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        stop=tuple(body.stop_sequences or ()),
    )


def _refuse(body: CountBody) -> None:
    refuse_fields(body, REFUSED)
    if body.speed not in (None, "standard"):
        raise UnsupportedFeature("speed is not supported: there is one; leave it out", param="speed")


def _template_options(body: CountBody) -> dict[str, Any] | None:
    """Return what chat templates read of how much to think, under the names that models gave it."""
    options: dict[str, Any] = {}
    if body.output_config is not None and body.output_config.effort is not None:
        options["reasoning_effort"] = body.output_config.effort
    thinking = body.thinking
    if thinking is not None:
        if thinking.budget_tokens is not None:
            msg = (
                "thinking.budget_tokens is not supported: engines hold to no budget of thinking; leave it out, or "
                'send thinking: {"type": "adaptive"}, and bound all with max_tokens'
            )
            raise UnsupportedFeature(msg, param="thinking.budget_tokens")
        if thinking.display is not None:
            msg = "thinking.display is not supported: thinking is shown as it is; leave it out"
            raise UnsupportedFeature(msg, param="thinking.display")
        options["enable_thinking"] = thinking.type != "disabled"
    return options or None


def _system(system: str | list[TextBlock] | None, conversation: Conversation) -> None:
    if isinstance(system, str):
        if system:
            conversation.text("system", system, "system")
        return
    if system:
        for index, block in enumerate(system):
            _check_text(block, f"system[{index}]")
        conversation.text("system", "\n".join(block.text for block in system), "system")


def _message(message: Message, place: str, conversation: Conversation) -> None:
    role, content = message.role, message.content
    if isinstance(content, str):
        conversation.text(role, content, place)
        return
    if not content:
        raise InvalidArgument(f"{place}.content must not be empty", param=f"{place}.content")
    for index, raw in enumerate(content):
        where = f"{place}.content[{index}]"
        block = _block(raw, where, _BY_ROLE[role], f"a message of the {role}")
        if isinstance(block, TextBlock):
            _check_text(block, where)
            conversation.text(role, block.text, place)
        elif isinstance(block, ImageBlock):
            url, field = _source(block, where)
            conversation.image(role, url, place, field=field)
        elif isinstance(block, ToolUseBlock):
            conversation.call(block.id, block.name, block.input, place)
        elif isinstance(block, ThinkingBlock):
            conversation.reasoning(block.thinking, place)
        elif isinstance(block, ToolResultBlock):
            _result(block, where, conversation)


def _block(raw: dict[str, Any], where: str, allowed: Sequence[str], holder: str) -> Any:
    kind = raw.get("type")
    if not isinstance(kind, str):
        raise InvalidArgument(f"{where}.type must say what the block is", param=f"{where}.type")
    if kind not in BLOCKS:
        msg = f"{where}: blocks of type {kind!r} are not supported; {holder} may hold {', '.join(allowed)}"
        raise UnsupportedFeature(msg, param=f"{where}.type")
    if kind not in allowed:
        msg = f"{where}: {holder} must not hold a {kind} block, but {', '.join(allowed)}"
        raise InvalidArgument(msg, param=f"{where}.type")
    return convert(raw, BLOCKS[kind], where)


def _check_text(block: TextBlock, where: str) -> None:
    if block.citations:
        msg = f"{where}.citations is not supported: put what is cited into the text"
        raise UnsupportedFeature(msg, param=f"{where}.citations")


def _source(block: ImageBlock, where: str) -> tuple[str, str]:
    """Return an image's URL and the place it has in the body."""
    source = block.source
    if isinstance(source, UrlSource):
        return source.url, f"{where}.source.url"
    return f"data:{source.media_type};base64,{source.data}", f"{where}.source.data"


def _result(block: ToolResultBlock, where: str, conversation: Conversation) -> None:
    """Add a tool's result. That it is an error the model can only read, so the text says so."""
    failed = "Error: " if block.is_error else ""
    if isinstance(block.content, str):
        conversation.result(block.tool_use_id, failed + block.content, where)
        return
    parts: list[dict[str, Any]] = [{"type": "text", "text": failed.strip()}] if failed else []
    for index, raw in enumerate(block.content):
        spot = f"{where}.content[{index}]"
        inner = _block(raw, spot, RESULT_BLOCKS, "a tool_result")
        if isinstance(inner, TextBlock):
            _check_text(inner, spot)
            parts.append({"type": "text", "text": inner.text})
        else:
            url, field = _source(inner, spot)
            parts.append(conversation.image_part(url, field, len(parts)))
    if all(part["type"] == "text" for part in parts):
        conversation.result(block.tool_use_id, "\n".join(part["text"] for part in parts), where)
    else:
        conversation.result(block.tool_use_id, parts, where)


def _tool(tool: Tool, where: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        msg = f"{where}.type: tools of type {tool.type!r} are not run here; define your own with an input_schema"
        raise UnsupportedFeature(msg, param=f"{where}.type")
    if tool.input_schema is None:
        raise InvalidArgument(f"missing required parameter: {where}.input_schema", param=f"{where}.input_schema")
    if tool.defer_loading:
        msg = f"{where}.defer_loading is not supported: send the tools that the model is to see"
        raise UnsupportedFeature(msg, param=f"{where}.defer_loading")
    if tool.allowed_callers not in (None, ["direct"]):
        msg = f"{where}.allowed_callers is not supported: the model alone calls tools; leave it out"
        raise UnsupportedFeature(msg, param=f"{where}.allowed_callers")
    if tool.input_examples is not None:
        msg = f"{where}.input_examples is not supported: put examples into the description"
        raise UnsupportedFeature(msg, param=f"{where}.input_examples")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(body: CountBody, names: Sequence[str]) -> tuple[str | dict[str, Any] | None, bool | None]:
    """Return the tool choice, and whether several calls at once are allowed."""
    choice = body.tool_choice
    if choice is None:
        return None, None
    parallel = False if choice.disable_parallel_tool_use else None
    if choice.type == "tool":
        if not choice.name:
            raise InvalidArgument("missing required parameter: tool_choice.name", param="tool_choice.name")
        if choice.name not in names:
            msg = f"tool_choice.name is {choice.name!r}, which is not among tools"
            raise InvalidArgument(msg, param="tool_choice.name")
        return {"type": "function", "function": {"name": choice.name}}, parallel
    if choice.name is not None:
        msg = f'tool_choice.name goes with type "tool", not {choice.type!r}'
        raise InvalidArgument(msg, param="tool_choice.name")
    if choice.type == "any" and not names:
        raise InvalidArgument("tool_choice: any needs tools", param="tool_choice")
    return _CHOICES[choice.type], parallel
