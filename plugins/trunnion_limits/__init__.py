"""Limit requests and tokens per minute, for each API key."""

from trunnion import HooksPlugin, hookimpl

from .config import KeyLimits, RateLimitsConfig


@hookimpl
def trunnion_hooks() -> list[HooksPlugin]:
    """Return the hooks of this package, which do nothing unless a limit is set."""
    return [
        HooksPlugin(
            name="rate_limits",
            factory="trunnion_limits.hooks:rate_limits",
            config=RateLimitsConfig,
            summary="Requests and tokens per minute of each API key; without limits it does nothing",
            priority=-100,
        )
    ]


__all__ = ["KeyLimits", "RateLimitsConfig", "trunnion_hooks"]
