"""Let the simulator speak a real tokenizer's ids, so that the stages around an engine can be tested without one."""

from __future__ import annotations

from trunnion import Capabilities, Support


def tokenizer_size(path: str) -> int:
    """Return the number of tokens below the special ones of the tokenizer at ``path``."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    special = [token for token in tokenizer.all_special_ids if token is not None]
    ordinary = len(tokenizer)
    while special and ordinary - 1 in special:
        ordinary -= 1
    return ordinary


def with_token_ids(capabilities: Capabilities) -> Capabilities:
    """Return the capabilities of an engine that takes and gives token ids alone."""
    return Capabilities(
        features={**capabilities.features, "detokenize": Support.YES},
        prompts=("token_ids",),
        protocols=capabilities.protocols,
        reasons=capabilities.reasons,
    )
