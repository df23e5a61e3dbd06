"""Define the limits' settings."""

from __future__ import annotations

from pydantic import Field

from trunnion.plugin import PluginConfig


class KeyLimits(PluginConfig):
    """Limit one key. They hold in each engine process: with N replicas a key may do N times as much."""

    requests_per_minute: float | None = Field(
        default=None, gt=0, description="Requests per minute; as many may come at once. None for no limit."
    )
    tokens_per_minute: float | None = Field(
        default=None,
        gt=0,
        description="Tokens per minute, of prompts and answers. They are counted once a request has ended, so that the "
        "one that exceeds the limit is answered, and later ones wait for it.",
    )


class RateLimitsConfig(KeyLimits):
    """Limit every key, and some keys otherwise."""

    keys: dict[str, KeyLimits] = Field(
        default_factory=dict,
        description="Limits of single keys, by the key's name, in place of the common ones. Requests without a key "
        "share those of the name 'anonymous'.",
    )

    @property
    def limited(self) -> bool:
        """Tell whether anything is limited."""
        limits = (self, *self.keys.values())
        return any(one.requests_per_minute is not None or one.tokens_per_minute is not None for one in limits)
