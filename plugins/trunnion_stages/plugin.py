"""Register the stages."""

from __future__ import annotations

from typing import Final

from trunnion.hookspecs import hookimpl
from trunnion.plugin import LibraryRequirement, StagePlugin

from .config import (
    ChatTemplateConfig,
    DetokenizeConfig,
    ReasoningConfig,
    TokenizeConfig,
    ToolCallsConfig,
)

_TRANSFORMERS: Final = LibraryRequirement(
    module="transformers",
    distributions=("transformers",),
    minimum="5.5",
    below="6",
    install="pip install 'trunnion[transformers]'",
)

_STAGES: Final = (
    StagePlugin(
        name="chat_template",
        factory="trunnion_stages.chat_template:ChatTemplateStage",
        config=ChatTemplateConfig,
        summary="Turns messages into text with the model's chat template",
        consumes="messages",
        produces="text",
        cost=1.0,
        requires=(_TRANSFORMERS,),
    ),
    StagePlugin(
        name="tokenize",
        factory="trunnion_stages.tokenize:TokenizeStage",
        config=TokenizeConfig,
        summary="Turns text into token ids",
        consumes="text",
        produces="token_ids",
        cost=1.0,
        requires=(_TRANSFORMERS,),
    ),
    StagePlugin(
        name="detokenize",
        factory="trunnion_stages.detokenize:DetokenizeStage",
        config=DetokenizeConfig,
        summary="Turns token ids into text as they come, never splitting a character",
        shape="stream",
        order=10,
        requires=(_TRANSFORMERS,),
    ),
    StagePlugin(
        name="stop_strings",
        factory="trunnion_stages.stop_strings:StopStringsStage",
        summary="Ends a choice at a stop string, for engines that cannot",
        shape="stream",
        supplies=frozenset({"sampling.stop", "sampling.include_stop_str_in_output"}),
        order=20,
    ),
    StagePlugin(
        name="reasoning",
        factory="trunnion_stages.reasoning:ReasoningStage",
        config=ReasoningConfig,
        summary="Parts reasoning between tags from the answer",
        shape="stream",
        automatic=False,
        order=30,
    ),
    StagePlugin(
        name="tool_choice",
        factory="trunnion_stages.tool_choice:ToolChoiceStage",
        summary="Turns a forced tool choice into a JSON schema for the output",
        supplies=frozenset({"tool_choice"}),
    ),
    StagePlugin(
        name="tool_calls",
        factory="trunnion_stages.tool_calls:ToolCallsStage",
        config=ToolCallsConfig,
        summary="Finds tool calls in the model's text",
        shape="stream",
        supplies=frozenset({"tools", "tool_choice", "parallel_tool_calls"}),
        needs=("chat_template",),
        order=40,
    ),
)


@hookimpl
def trunnion_stages() -> list[StagePlugin]:
    """Return the stages."""
    return list(_STAGES)
