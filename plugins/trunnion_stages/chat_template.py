"""Turn messages into text with the model's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from trunnion.engine import TokenizerRef
from trunnion.errors import ConfigError, InvalidArgument, TrunnionError, UnsupportedFeature
from trunnion.requests import GenerateRequest, MessagesPrompt, TextPrompt
from trunnion.stage import StageContext

from ._tokenizers import load_tokenizer, template_module, tokenizer_ref
from .config import ChatTemplateConfig
from .messages import template_messages

_RESERVED: Final = frozenset({"messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template"})


class ChatTemplateStage:
    """Render :class:`MessagesPrompt` to :class:`TextPrompt`; other prompts pass unchanged. Thread-safe.

    The text has its BOS where the template writes one, so ``add_special_tokens`` is off.
    """

    def __init__(self, context: StageContext, config: ChatTemplateConfig) -> None:
        ref = tokenizer_ref(context, "chat_template")
        tokenizer = load_tokenizer(ref, trust_remote_code=config.trust_remote_code)
        self._config = config
        self._render_module = template_module()
        self._special_tokens = tokenizer.special_tokens
        self._path = tokenizer.path
        self._plain, self._with_tools = _templates(config, ref, tokenizer.templater)
        self._compile = self._render_module._compile_jinja_template  # noqa: SLF001 - render_jinja_template is slower
        for template in {self._plain, self._with_tools} - {None}:
            try:
                self._compile(template)
            except Exception as error:
                msg = f"the chat template of {tokenizer.path!r} does not compile: {error}"
                raise ConfigError(msg, param="chat_template") from error

    def process(self, items: Sequence[GenerateRequest]) -> list[GenerateRequest | TrunnionError]:
        """Return each request with its prompt as text, or the error of its messages."""
        return [self._one(item) for item in items]

    def _one(self, request: GenerateRequest) -> GenerateRequest | TrunnionError:
        prompt = request.prompt
        if not isinstance(prompt, MessagesPrompt):
            return request
        try:
            text = self._render(prompt, request)
        except TrunnionError as error:
            return error
        return request.with_(prompt=TextPrompt(text=text, add_special_tokens=False))

    def _render(self, prompt: MessagesPrompt, request: GenerateRequest) -> str:
        messages = template_messages(prompt.messages, join=self._config.content_format == "string")
        tools = _tools(request)
        template = self._template(prompt, tools)
        variables: dict[str, Any] = {
            **self._special_tokens,
            **_extra_variables(prompt.chat_template_kwargs),
            "tools": tools,
        }
        try:
            if prompt.continue_final_message:
                rendered, _ = self._render_module.render_jinja_template(
                    conversations=[messages], chat_template=template, continue_final_message=True, **variables
                )
                return rendered[0]  # type: ignore[no-any-return]
            variables.setdefault("documents", None)
            variables["messages"] = messages
            variables["add_generation_prompt"] = prompt.add_generation_prompt
            return self._compile(template).render(variables)  # type: ignore[no-any-return]
        except Exception as error:
            raise _render_error(error, own=prompt.chat_template is None) from error

    def _template(self, prompt: MessagesPrompt, tools: object) -> str:
        template = prompt.chat_template
        if template is None:
            template = self._plain if tools is None else self._with_tools
            if template is None:
                msg = (
                    f"model {self._path!r} has no chat template, so messages cannot become text; send a prompt "
                    f"instead, or set chat_template on the chat_template stage to a Jinja file"
                )
                raise InvalidArgument(msg, param="messages")
            return template
        if not self._config.allow_request_template:
            msg = (
                "chat_template: this pipeline renders the model's own chat template alone; leave chat_template out, "
                "or set allow_request_template on the chat_template stage"
            )
            raise UnsupportedFeature(msg, param="chat_template")
        return template


def _tools(request: GenerateRequest) -> list[dict[str, Any]] | None:
    if not request.tools or request.tool_choice == "none":
        return None
    return [tool if isinstance(tool, dict) else dict(tool) for tool in request.tools]


def _extra_variables(variables: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if not variables:
        return {}
    taken = sorted(_RESERVED & variables.keys())
    if taken:
        msg = f"chat_template_kwargs must not hold {', '.join(taken)}; the request has a field for it"
        raise InvalidArgument(msg, param=f"chat_template_kwargs.{taken[0]}")
    return variables


def _render_error(error: Exception, *, own: bool) -> InvalidArgument:
    from jinja2 import TemplateError, TemplateSyntaxError

    if not own and isinstance(error, TemplateSyntaxError):
        return InvalidArgument(f"chat_template does not compile: {error}", param="chat_template")
    said = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
    param = "messages" if own else "chat_template"
    return InvalidArgument(f"the chat template refuses these messages: {said}", param=param)


def _templates(config: ChatTemplateConfig, ref: TokenizerRef, tokenizer: Any) -> tuple[str | None, str | None]:
    """Return the templates for requests without and with tools, mostly the same; None where the model has none."""
    override = config.chat_template or ref.chat_template
    if override is not None:
        template = _read(override)
        return template, template
    if not tokenizer.chat_template:
        return None, None
    try:
        return tokenizer.get_chat_template(), tokenizer.get_chat_template(tools=[])
    except ValueError as error:
        msg = f"model {ref.path!r}: {error}"
        raise ConfigError(msg, param="chat_template") from error


def _read(template: str) -> str:
    if "{" in template or "\n" in template:
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except OSError as error:
        msg = (
            f"chat_template {template!r} is neither a template (it has no braces) nor a file that can be read: {error}"
        )
        raise ConfigError(msg, param="chat_template") from error
