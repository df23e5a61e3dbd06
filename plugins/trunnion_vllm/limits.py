"""Say in numbers why a prompt does not fit."""

from __future__ import annotations

from trunnion.errors import ContextOverflow


def context_overflow(prompt_tokens: int, max_tokens: int | None, context: int) -> ContextOverflow:
    """Return the error for a prompt that, with the tokens asked for, exceeds the context."""
    details = {"prompt_tokens": prompt_tokens, "max_tokens": max_tokens, "context_length": context}
    if max_tokens is None or prompt_tokens >= context:
        message = f"the prompt has {prompt_tokens} tokens and the context holds {context}, output included; shorten it"
        return ContextOverflow(message, param="prompt", details=details)
    message = (
        f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, more than the context's {context}; "
        f"ask for at most {context - prompt_tokens} tokens or shorten the prompt"
    )
    return ContextOverflow(message, param="max_tokens", details=details)
