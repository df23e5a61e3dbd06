"""Make token ids of a prompt with the tokenizer and the chat template inside the GGUF file."""

from __future__ import annotations

import asyncio
from typing import Final

from trunnion import MessagesPrompt, Prompt, TextPrompt
from trunnion.errors import InvalidArgument

from ._llama import Model
from .template import ChatTemplate

_SHORT: Final = 4096
"""Characters up to which text is tokenized in the event loop; more goes to a thread."""


class PromptReader:
    """Read prompts of any kind for one model; ``template`` is None where the file has none."""

    def __init__(self, model: Model, template: ChatTemplate | None) -> None:
        """Take what reads."""
        self._model = model
        self._template = template

    async def read(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt.

        Raises:
            InvalidArgument: It is empty, cannot be read, or holds an id that the model does not know.
        """
        if isinstance(prompt, MessagesPrompt):
            prompt = TextPrompt(text=self._render(prompt), add_special_tokens=False)
        if isinstance(prompt, TextPrompt):
            ids = await self._tokenize(prompt)
        else:
            ids = list(prompt.token_ids)
        if not ids:
            raise InvalidArgument("the prompt holds no tokens; send at least one", param="prompt")
        size = self._model.size
        if min(ids) < 0 or max(ids) >= size:
            message = f"the prompt holds a token id outside the model's vocabulary of {size}"
            raise InvalidArgument(message, param="prompt")
        return ids

    def _render(self, prompt: MessagesPrompt) -> str:
        if self._template is None:
            message = "the model's file has no chat template; send a prompt, or set chat_template on the engine"
            raise InvalidArgument(message, param="messages")
        return self._template.render(prompt)

    async def _tokenize(self, prompt: TextPrompt) -> list[int]:
        def tokenize() -> list[int]:
            return self._model.tokenize(prompt.text, add_special=prompt.add_special_tokens)

        try:
            return tokenize() if len(prompt.text) < _SHORT else await asyncio.to_thread(tokenize)
        except UnicodeEncodeError as error:
            raise InvalidArgument(f"the prompt is no text that can be encoded: {error}", param="prompt") from error
