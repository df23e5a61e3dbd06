"""Turn text into token ids with the tokenizer's fast backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument, TrunnionError
from trunnion.requests import GenerateRequest, TextPrompt, TokensPrompt
from trunnion.stage import StageContext

from ._tokenizers import load_tokenizer, tokenizer_ref
from .config import TokenizeConfig

_SMALL: Final = 8
"""Rows below which waking the tokenizer's thread pool costs more than it saves."""


class TokenizeStage:
    """Encode :class:`TextPrompt` to :class:`TokensPrompt`; other prompts pass unchanged. Thread-safe.

    Nothing is ever cut off. Text that begins with BOS already gets no second one.
    """

    def __init__(self, context: StageContext, config: TokenizeConfig) -> None:
        ref = tokenizer_ref(context, "tokenize")
        tokenizer = load_tokenizer(ref, trust_remote_code=config.trust_remote_code)
        self._backend: Any = tokenizer.backend
        self._bos_id = tokenizer.bos_id

    def process(self, items: Sequence[GenerateRequest]) -> list[GenerateRequest | TrunnionError]:
        """Return each request with its prompt as token ids, or the error of its text."""
        if len(items) < _SMALL:
            return [self._one(item) for item in items]
        results: list[GenerateRequest | TrunnionError] = list(items)
        for special in (False, True):
            self._encode([i for i, item in enumerate(items) if _wants(item, special=special)], results, special=special)
        return results

    def _encode(self, places: list[int], results: list[GenerateRequest | TrunnionError], *, special: bool) -> None:
        if not places:
            return
        requests: Any = [results[place] for place in places]
        try:
            encodings = self._backend.encode_batch_fast([r.prompt.text for r in requests], add_special_tokens=special)
        except Exception:  # noqa: BLE001 - one bad text fails the batch, so each row is tried by itself
            for place, request in zip(places, requests, strict=True):
                results[place] = self._one(request)
            return
        for place, request, encoding in zip(places, requests, encodings, strict=True):
            results[place] = self._made(request, encoding.ids)

    def _one(self, request: GenerateRequest) -> GenerateRequest | TrunnionError:
        prompt = request.prompt
        if not isinstance(prompt, TextPrompt):
            return request
        try:
            ids = self._backend.encode(prompt.text, add_special_tokens=prompt.add_special_tokens).ids
        except Exception as error:  # noqa: BLE001 - a TypeError for what is not text, UnicodeEncodeError for surrogates
            failed = InvalidArgument(f"prompt cannot be tokenized: {error}", param="prompt")
            failed.__cause__ = error
            return failed
        return self._made(request, ids)

    def _made(self, request: GenerateRequest, ids: list[int]) -> GenerateRequest:
        prompt: Any = request.prompt
        bos = self._bos_id
        if bos is not None and prompt.add_special_tokens and ids[:2] == [bos, bos]:
            del ids[0]
        return request.with_(prompt=TokensPrompt(token_ids=ids, text=prompt.text))


def _wants(item: GenerateRequest, *, special: bool) -> bool:
    prompt = item.prompt
    return isinstance(prompt, TextPrompt) and prompt.add_special_tokens is special
