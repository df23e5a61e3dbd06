"""Make of a request's prompt what vLLM's engine takes: token ids, with media where there are some."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping
from typing import Any, Final

from trunnion.errors import UnsupportedFeature
from trunnion.plugin_tools import context_overflow
from trunnion.requests import GenerateRequest, MessagesPrompt, Prompt, TextPrompt, TokensPrompt

from .errors import MAPPED

_SHORT_TEXT: Final = 4096
"""Characters up to which text is tokenized in the event loop; more goes to a thread."""


class PromptMaker:
    """Turn prompts into vLLM's engine inputs.

    Text is handed over as token ids, without vLLM's preprocessing thread. Media go through vLLM's own renderer, which
    knows the model's placeholders and runs its processor. What is given by URL never reaches it.
    """

    def __init__(self, llm: Any, context: int) -> None:
        """Take the AsyncLLM and its context length in tokens."""
        self._llm = llm
        self._context = context

    async def make(self, request: GenerateRequest) -> Mapping[str, Any]:
        """Return the engine input of a request.

        Raises:
            ContextOverflow: The prompt and the tokens asked for exceed the context.
            UnsupportedFeature: Messages without media, which the template stage turns into text.
        """
        if request.media:
            from .media import media_input

            made = await media_input(self._llm, request, self.token_ids)
        else:
            made = {"type": "token", "prompt_token_ids": await self.token_ids(request.prompt)}
        if request.cache_salt is not None:
            made["cache_salt"] = request.cache_salt
        self._check_context(len(made["prompt_token_ids"]), request.sampling.max_tokens)
        return made

    async def token_ids(self, prompt: Prompt) -> list[int]:
        """Return a prompt's token ids. Raises :class:`UnsupportedFeature` for messages."""
        if isinstance(prompt, TokensPrompt):
            ids = prompt.token_ids
            return ids if type(ids) is list else list(ids)
        if isinstance(prompt, TextPrompt):
            with MAPPED:
                tokenizer = self._llm.get_tokenizer()
                encode = functools.partial(tokenizer.encode, prompt.text, add_special_tokens=prompt.add_special_tokens)
                if len(prompt.text) < _SHORT_TEXT:
                    return list(encode())
                return list(await asyncio.to_thread(encode))
        assert isinstance(prompt, MessagesPrompt)
        raise UnsupportedFeature(
            "the vLLM engine takes messages only with media; text alone goes through the template stage",
            param="messages",
        )

    async def pair(self, query: str, text: str) -> tuple[list[int], int | None]:
        """Return a query and a text as the tokenizer joins them, and where the second begins if it tells them apart."""
        with MAPPED:
            encode = functools.partial(self._llm.get_tokenizer(), query, text)
            made = encode() if len(query) + len(text) < _SHORT_TEXT else await asyncio.to_thread(encode)
        kinds = made.get("token_type_ids") or ()
        return list(made["input_ids"]), kinds.index(1) if 1 in kinds else None

    def _check_context(self, prompt_tokens: int, max_tokens: int | None) -> None:
        """Refuse what does not fit, as OpenAI's API and vLLM's own server do. Raises :class:`ContextOverflow`."""
        wanted = 1 if max_tokens is None else max_tokens
        if prompt_tokens + wanted > self._context:
            raise context_overflow(prompt_tokens, max_tokens, self._context)
