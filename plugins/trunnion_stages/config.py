"""Define the configuration of the stages."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from trunnion.plugin import PluginConfig


class ChatTemplateConfig(PluginConfig):
    """Configure ``chat_template``."""

    allow_request_template: bool = Field(
        default=False,
        description="Render a template that came with the request. It runs in Jinja's sandbox, but may loop for long.",
    )
    trust_remote_code: bool = Field(
        default=False, description="Run the tokenizer's own Python code from the model's repository."
    )
    chat_template: str | None = Field(
        default=None, description="Path of a Jinja file, or the template itself, to use instead of the model's own."
    )
    content_format: Literal["string", "parts"] = Field(
        default="string",
        description="What the template gets for a message of several text parts: one string, joined by newlines, "
        "or the list of parts.",
    )


class TokenizeConfig(PluginConfig):
    """Configure ``tokenize``."""

    trust_remote_code: bool = Field(
        default=False, description="Run the tokenizer's own Python code from the model's repository."
    )


class DetokenizeConfig(PluginConfig):
    """Configure ``detokenize``."""

    trust_remote_code: bool = Field(
        default=False, description="Run the tokenizer's own Python code from the model's repository."
    )
    flush_incomplete: bool = Field(
        default=True,
        description="Write a character that was cut off by the end of the output as U+FFFD, as decoding the whole "
        "output would; off drops it, as vLLM does.",
    )


class ReasoningConfig(PluginConfig):
    """Configure ``reasoning``."""

    start: str = Field(default="<think>", min_length=1, description="Tag that opens the reasoning.")
    end: str = Field(default="</think>", min_length=1, description="Tag that closes the reasoning.")
    starts_inside: bool | None = Field(
        default=None,
        description="Whether the output begins within the reasoning; by default it does if the prompt's text ends "
        "with the start tag.",
    )


class ToolCallsConfig(PluginConfig):
    """Configure ``tool_calls``."""

    format: Literal["hermes", "json"] = Field(
        default="hermes",
        description="How the model writes a call when it is free to: 'hermes' is JSON between <tool_call> tags, "
        "'json' a bare object or array of objects, each with name and arguments (or parameters).",
    )
    start: str = Field(default="<tool_call>", min_length=1, description="Tag that opens a call in the hermes format.")
    end: str = Field(default="</tool_call>", min_length=1, description="Tag that closes a call in the hermes format.")

    @model_validator(mode="after")
    def _tags_differ(self) -> Self:
        if self.start == self.end:
            msg = f"start and end must differ, both are {self.start!r}"
            raise ValueError(msg)
        return self
