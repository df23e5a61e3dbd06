"""Mask requests before they are planned, and leave a note of what was masked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from trunnion import GenerateRequest, TokensPrompt
from trunnion.errors import UnsupportedFeature

from .config import RedactConfig
from .find import Finder
from .mask import mask
from .walk import rewritten

NOTE: Final = "redact"
"""Name of the note for the stage that restores."""
_OFFLOAD_CHARACTERS: Final = 1_000
"""Longer requests are searched on a thread: phone numbers take up to 40 microseconds per character."""


class RedactHooks:
    """Mask every request of a pipeline."""

    def __init__(self, config: RedactConfig) -> None:
        self._finder = Finder(config)
        self._passes_ids = config.token_ids != "refuse"  # noqa: S105 - no password

    def before_request(self, request: GenerateRequest) -> GenerateRequest | Awaitable[GenerateRequest | None] | None:
        """Return the masked request; None if there is nothing to mask.

        Raises:
            UnsupportedFeature: The prompt is token ids, and they are not let through.
            InvalidArgument: A stop string would strike within a placeholder.
        """
        if not self._passes_ids and isinstance(request.prompt, TokensPrompt):
            raise UnsupportedFeature(
                "prompts of token ids cannot be searched for e-mail addresses and phone numbers; send text or "
                "messages, or let them pass unmasked with the redact hooks' token_ids='pass'",
                param="prompt",
            )
        size = 0

        def measure(text: str) -> str:
            nonlocal size
            size += len(text)
            return text

        rewritten(request, measure)
        if size > _OFFLOAD_CHARACTERS:
            return asyncio.to_thread(self._masked, request)
        return self._masked(request)

    def _masked(self, request: GenerateRequest) -> GenerateRequest | None:
        made, masked = mask(request, self._finder)
        return made.with_note(NOTE, masked) if masked.values else None
