"""Make token ids of a prompt, and refuse ids that would kill the engine's thread."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.requests import Prompt, TextPrompt, TokensPrompt

from .encoder import Tokens

_SHORT_TEXT: Final = 4096
"""Characters up to which text is tokenized in the event loop; more goes to a thread."""


class PromptReader:
    """Read prompts for one model; ``tokenizer`` is None where it has none."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        """Take the tokenizer and the number of tokens that the model knows."""
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary

    async def read(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt.

        Raises:
            UnsupportedFeature: It is of a kind that this engine does not take.
            InvalidArgument: It is empty, or holds an id that the model does not know.
        """
        if isinstance(prompt, TokensPrompt):
            ids = list(prompt.token_ids)
        elif isinstance(prompt, TextPrompt) and self._tokenizer is not None:
            encode = partial(self._tokenizer.encode, prompt.text, add_special_tokens=prompt.add_special_tokens)
            ids = encode() if len(prompt.text) < _SHORT_TEXT else await asyncio.to_thread(encode)
        else:
            takes = "token ids" if self._tokenizer is None else "token ids or text"
            message = f"the transformers engine takes {takes} here, not {prompt.kind}; the stages convert the rest"
            raise UnsupportedFeature(message, param="prompt")
        if not ids:
            raise InvalidArgument("the prompt holds no tokens; send at least one", param="prompt")
        if min(ids) < 0 or max(ids) >= self._vocabulary:
            message = f"the prompt holds a token id outside the model's vocabulary of {self._vocabulary}"
            raise InvalidArgument(message, param="prompt")
        return ids

    async def pair(self, query: str, text: str) -> Tokens:
        """Return a query and a text as the model's own tokenizer joins them.

        Raises:
            UnsupportedFeature: The model has no tokenizer.
            InvalidArgument: The tokenizer knows tokens that the model does not.
        """
        if self._tokenizer is None:
            raise UnsupportedFeature("the model has no tokenizer to join a query and a text with", param="model")
        encode = partial(self._tokenizer, query, text)
        made = encode() if len(query) + len(text) < _SHORT_TEXT else await asyncio.to_thread(encode)
        ids = await self.read(TokensPrompt(token_ids=made["input_ids"]))
        return Tokens(ids, sum(made.get("token_type_ids") or ()))

    def text_of(self, token: int) -> str:
        """Return the text of one token; empty without a tokenizer."""
        return "" if self._tokenizer is None else str(self._tokenizer.decode([token]))
