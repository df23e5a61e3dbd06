"""Register the stages."""

from __future__ import annotations

from typing import Final

from trunnion.hookspecs import hookimpl
from trunnion.plugin import LibraryRequirement, StagePlugin

from .config import (
    ChatTemplateConfig,
    DetokenizeConfig,
    TokenizeConfig,
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
)


@hookimpl
def trunnion_stages() -> list[StagePlugin]:
    """Return the stages."""
    return list(_STAGES)
