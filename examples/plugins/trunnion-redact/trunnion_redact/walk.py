"""Apply a function to every text of a request that an engine would see; what stays equal is not copied."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from trunnion import Choice, GenerateRequest, JsonSchema, MessagesPrompt, OutputFormat, Prompt, TextPrompt

Rewrite = Callable[[str], str]

_MEDIA: Final = frozenset({"image_url", "video_url", "audio_url", "input_audio", "file"})
_SCHEMA: Final = frozenset({"$ref", "$id", "$schema", "pattern", "format", "required"})
"""Keywords of JSON Schema whose values are no prose. Any other key is looked into, whatever it is."""


def rewritten(request: GenerateRequest, rewrite: Rewrite) -> GenerateRequest:
    """Return the request with its texts rewritten: prompt, tools, the values of an output format, stop strings.

    The request itself comes back if nothing changed. Prompts of token ids stay as they are.
    """
    made = {
        "prompt": _prompt(request.prompt, rewrite),
        "tools": tuple(_items(request.tools, rewrite)),
        "output_format": _format(request.output_format, rewrite),
    }
    changes: dict[str, Any] = {name: value for name, value in made.items() if value != getattr(request, name)}
    stop = tuple(map(rewrite, request.sampling.stop))
    if stop != request.sampling.stop:
        changes["sampling"] = replace(request.sampling, stop=stop)
    return request.with_(**changes) if changes else request


def _prompt(prompt: Prompt, rewrite: Rewrite) -> Prompt:
    if isinstance(prompt, TextPrompt):
        return replace(prompt, text=rewrite(prompt.text))
    if isinstance(prompt, MessagesPrompt):
        messages, kwargs = _items(prompt.messages, rewrite), _value(prompt.chat_template_kwargs, rewrite)
        return replace(prompt, messages=messages, chat_template_kwargs=kwargs)
    return prompt


def _format(wanted: OutputFormat | None, rewrite: Rewrite) -> OutputFormat | None:
    if isinstance(wanted, JsonSchema):
        return replace(wanted, schema=_value(wanted.schema, rewrite))
    if isinstance(wanted, Choice):
        return replace(wanted, choices=tuple(map(rewrite, wanted.choices)))
    return wanted


def _value(value: Any, rewrite: Rewrite) -> Any:
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, Mapping):
        return _mapping(value, rewrite)
    return _items(value, rewrite) if isinstance(value, list | tuple) else value


def _items(values: Any, rewrite: Rewrite) -> Any:
    made = [_value(item, rewrite) for item in values]
    return values if all(new is old for new, old in zip(made, values, strict=True)) else made


def _mapping(values: Mapping[str, Any], rewrite: Rewrite, *, function: bool = False) -> Any:
    kind = values.get("type")
    made: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            is_media = key == kind and key in _MEDIA
            made[key] = value if is_media else _mapping(value, rewrite, function=key == "function")
        elif key in _SCHEMA or (function and key == "name"):
            made[key] = value
        elif function and key == "arguments" and isinstance(value, str):
            made[key] = _arguments(value, rewrite)
        else:
            made[key] = _value(value, rewrite)
    return values if all(made[key] is value for key, value in values.items()) else made


def _arguments(text: str, rewrite: Rewrite) -> str:
    """Rewrite the arguments of a call, which are JSON text: its strings, and numbers as if they were written out."""
    try:
        value = json.loads(text)
    except ValueError:
        return rewrite(text)
    made = _json(value, rewrite)
    return text if made == value else json.dumps(made, ensure_ascii=False)


def _json(value: Any, rewrite: Rewrite) -> Any:
    if isinstance(value, str):
        return rewrite(value)
    if isinstance(value, dict):
        return {rewrite(key): _json(item, rewrite) for key, item in value.items()}
    if isinstance(value, list):
        return [_json(item, rewrite) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
        made = rewrite(text)
        return value if made == text else made
    return value
