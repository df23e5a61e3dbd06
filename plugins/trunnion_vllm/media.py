"""Render prompts with images, audio and video by vLLM's own renderer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.media import MEDIA_PARTS, wire_messages, wire_part
from trunnion.requests import GenerateRequest, MediaPart, MessagesPrompt, Prompt

from . import _vllm

_TEXTS: Final = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Parts that are text, and the field it is in."""
_FURTHER: Final = ("detail", "uuid")
"""Fields of media parts: the first vLLM takes no notice of, the second makes it take another request's media."""
_NOTHING: Final = "{{ '' }}"
"""A chat template for conversations of which the media alone are wanted."""


def modalities(llm: Any) -> frozenset[str]:
    """Return which of image, audio and video the model and its configuration take."""
    if not llm.model_config.is_multimodal_model:
        return frozenset()
    limits = llm.renderer.get_mm_processor().info.allowed_mm_limits
    return frozenset(name for name, most in limits.items() if most is None or most > 0)


async def media_input(
    llm: Any, request: GenerateRequest, token_ids: Callable[[Prompt], Awaitable[list[int]]]
) -> dict[str, Any]:
    """Return the engine input of a request with media.

    Messages keep their media parts where they are; where they hold none, the request's media go before the text of
    the last user message. Text and token ids hold the model's own placeholders, one per part, in order.

    Raises:
        InvalidArgument: The messages hold other media than the request, or none of them is a user's.
        UnsupportedFeature: Media are given by URL, or a part holds what is not passed on.
    """
    prompt = request.prompt
    _checked(request.media)
    if isinstance(prompt, MessagesPrompt):
        params = _vllm.ChatParams(
            chat_template=prompt.chat_template,
            chat_template_kwargs={
                "add_generation_prompt": prompt.add_generation_prompt,
                "continue_final_message": prompt.continue_final_message,
                "tokenize": False,
                **(prompt.chat_template_kwargs or {}),
            },
        )
        messages = vllm_messages(prompt.messages, request.media)
        _, (made,) = await llm.renderer.render_chat_async([messages], params)
        return dict(made)
    message = {"role": "user", "content": [wire_part(part) for part in request.media]}
    params = _vllm.ChatParams(chat_template=_NOTHING, chat_template_content_format="openai")
    _, loaded = await llm.renderer.render_messages_async([message], params)
    kept = {key: value for key, value in loaded.items() if key.startswith("multi_modal_")}
    ids = await token_ids(prompt)
    (made,) = await llm.renderer.render_cmpl_async([{"prompt_token_ids": ids, **kept}])
    return dict(made)


def _checked(media: Sequence[MediaPart]) -> None:
    """Refuse what vLLM would fetch by itself: whoever makes a request must not choose where this machine connects to.

    Raises:
        UnsupportedFeature: A part is given by a URL that holds no data. A pipeline fetches it before, where allowed.
    """
    for index, part in enumerate(media):
        if part.url is not None and not part.url.startswith("data:"):
            where = f"media[{index}].url"
            raise UnsupportedFeature(
                f"{where}: the vLLM engine fetches no media; send the data, or run it in a pipeline whose media "
                "settings allow the host",
                param=where,
            )


def vllm_messages(messages: Sequence[Mapping[str, Any]], media: Sequence[MediaPart]) -> list[dict[str, Any]]:
    """Return the messages with the media in them, and nothing else that vLLM would load or look up.

    Raises:
        InvalidArgument: The messages hold other media than the request, or none of them is a user's.
        UnsupportedFeature: A part or one of its fields means something that is not passed on; ``param`` is its place.
    """
    made = []
    for index, message in enumerate(wire_messages(messages, media)):
        content = message.get("content")
        if not isinstance(content, list | tuple):
            made.append(dict(message))
            continue
        parts = [_part(part, f"messages[{index}].content[{spot}]") for spot, part in enumerate(content)]
        made.append({**message, "content": parts})
    return made


def _part(part: Any, place: str) -> dict[str, Any]:
    """Return a part made anew: vLLM reads media from several fields, and from parts that call themselves text."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXTS:
        text = part.get(_TEXTS[kind])
        if not isinstance(text, str):
            where = f"{place}.{_TEXTS[kind]}"
            raise InvalidArgument(f"{where} must be a string", param=where)
        return {"type": "text", "text": text}
    if kind == "input_audio":
        held = part[kind]
        return {"type": kind, kind: {"data": held["data"], "format": held["format"]}}
    if kind not in MEDIA_PARTS:
        where = f"{place}.type"
        raise UnsupportedFeature(f"{where}: parts of type {kind!r} are not passed on to vLLM", param=where)
    held = part[kind]
    url = held["url"] if isinstance(held, Mapping) else held
    further = {**(held if isinstance(held, Mapping) else {}), **part}
    for name in _FURTHER:
        if further.get(name) not in (None, "auto"):
            where = f"{place}.{kind}.{name}"
            raise UnsupportedFeature(f"{where} is not supported by vLLM here; leave it out", param=where)
    return {"type": kind, kind: {"url": url}}
