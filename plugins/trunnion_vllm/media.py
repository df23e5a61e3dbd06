"""Render prompts with images, audio and video by vLLM's own renderer."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument
from trunnion.requests import GenerateRequest, MediaPart, MessagesPrompt, Prompt

from . import _vllm

_PARTS: Final = frozenset({"image_url", "audio_url", "video_url", "input_audio"})
_MIME_TYPES: Final = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4"}
"""What is assumed of bytes without a type; vLLM looks at the bytes themselves for images."""
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
    """
    prompt = request.prompt
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
        messages = with_media(prompt.messages, request.media)
        _, (made,) = await llm.renderer.render_chat_async([messages], params)
        return dict(made)
    message = {"role": "user", "content": [wire_part(part) for part in request.media]}
    params = _vllm.ChatParams(chat_template=_NOTHING, chat_template_content_format="openai")
    _, loaded = await llm.renderer.render_messages_async([message], params)
    kept = {key: value for key, value in loaded.items() if key.startswith("multi_modal_")}
    ids = await token_ids(prompt)
    (made,) = await llm.renderer.render_cmpl_async([{"prompt_token_ids": ids, **kept}])
    return dict(made)


def with_media(messages: Sequence[Mapping[str, Any]], media: Sequence[MediaPart]) -> list[dict[str, Any]]:
    """Return the messages with their media in them."""
    made = [dict(message) for message in messages]
    there = sum(part.get("type") in _PARTS for message in made for part in _parts(message))
    if there:
        if there != len(media):
            message = f"the messages hold {there} media parts and the request {len(media)}; they must be the same"
            raise InvalidArgument(message, param="media")
        return made
    users = [message for message in made if message.get("role") == "user"]
    if not users:
        raise InvalidArgument("there is no user message that the media could belong to", param="messages")
    content = users[-1].get("content")
    text = [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())
    users[-1]["content"] = [*map(wire_part, media), *text]
    return made


def wire_part(part: MediaPart) -> dict[str, Any]:
    """Return a media part as OpenAI's wire format has it, bytes as a data URL."""
    url = part.url
    if url is None:
        if part.data is None:
            raise InvalidArgument("a media part needs a url or data", param="media")
        encoded = base64.b64encode(part.data).decode("ascii")
        url = f"data:{part.mime_type or _MIME_TYPES[part.type]};base64,{encoded}"
    kind = f"{part.type}_url"
    return {"type": kind, kind: {"url": url}}


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message.get("content")
    return [part for part in content if isinstance(part, Mapping)] if isinstance(content, list | tuple) else []
