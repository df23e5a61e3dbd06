"""Render messages with the chat template inside a GGUF file, by the conventions of Hugging Face's templates."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trunnion import MessagesPrompt
from trunnion.errors import ConfigError, InvalidArgument, UnsupportedFeature

_RESERVED: Final = frozenset({"messages", "tools", "add_generation_prompt", "bos_token", "eos_token"})
_SOURCE: Final = "this engine renders the model's own chat template alone; set chat_template on the engine"


class ChatTemplate:
    """Hold a compiled template. Thread-safe."""

    def __init__(self, text: str, *, special: Mapping[str, str]) -> None:
        """Compile it; ``special`` holds ``bos_token`` and ``eos_token``.

        Raises:
            ConfigError: It does not compile.
        """
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: dt.datetime.now().astimezone().strftime(form)
        self._special = special
        try:
            self._template = environment.from_string(text)
        except TemplateError as error:
            message = f"the chat template does not compile: {error}"
            raise ConfigError(message, param="chat_template") from error

    def render(self, prompt: MessagesPrompt) -> str:
        """Return the text of a conversation.

        Raises:
            InvalidArgument: The template refuses the messages, or they hold more than text.
            UnsupportedFeature: The request brings a template of its own.
        """
        if prompt.chat_template is not None:
            raise UnsupportedFeature(f"chat_template: {_SOURCE}", param="chat_template")
        variables = dict(prompt.chat_template_kwargs or {})
        if taken := sorted(_RESERVED & variables.keys()):
            message = f"chat_template_kwargs must not hold {taken[0]}; the request has a field for it"
            raise InvalidArgument(message, param=f"chat_template_kwargs.{taken[0]}")
        messages = [_plain(message, index) for index, message in enumerate(prompt.messages)]
        open_end = prompt.continue_final_message
        try:
            text = self._template.render(
                messages=messages,
                tools=None,
                documents=None,
                add_generation_prompt=prompt.add_generation_prompt and not open_end,
                **self._special,
                **variables,
            )
        except Exception as error:
            message = f"the chat template refuses these messages: {error}"
            raise InvalidArgument(message, param="messages") from error
        return _cut(text, messages) if open_end else text


def _cut(text: str, messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text up to the end of the last message's content, for the model to go on with."""
    content = str(messages[-1].get("content") or "") if messages else ""
    stripped = content.strip()
    start = text.rfind(stripped) if stripped else -1
    if start < 0:
        message = "continue_final_message needs a last message whose content the chat template writes out"
        raise InvalidArgument(message, param="continue_final_message")
    whole = text.startswith(content, max(0, start - (len(content) - len(content.lstrip()))))
    return text[: start + len(stripped)] + (content[len(content.rstrip()) :] if whole else "")


def _plain(message: Any, index: int) -> dict[str, Any]:
    """Return a message whose content is one string, which every template takes."""
    if not isinstance(message, Mapping):
        raise InvalidArgument(f"messages[{index}] must be an object, not {message!r}", param=f"messages[{index}]")
    made = dict(message)
    content = made.get("content")
    if isinstance(content, list):
        for part in content:
            if not isinstance(part, Mapping) or part.get("type") != "text":
                message = f"messages[{index}] holds a part that is no text, and this engine reads text alone"
                raise InvalidArgument(message, param=f"messages[{index}].content")
        made["content"] = "".join(str(part.get("text", "")) for part in content)
    return made


def _tojson(value: Any, indent: int | None = None, **options: Any) -> str:
    """Write JSON for the model to read: nothing escaped for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent, **options)


def _raise(message: str) -> None:
    from jinja2 import TemplateError

    raise TemplateError(message)


def read_template(setting: str) -> str:
    """Return the template that a setting means: itself, or the file of that path. Raises :class:`ConfigError`."""
    if "{" in setting or "\n" in setting:
        return setting
    try:
        return Path(setting).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        message = f"chat_template {setting!r} is neither a template (it has no braces) nor a file: {error}"
        raise ConfigError(message, param="chat_template") from error
