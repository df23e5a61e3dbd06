"""Count what requests cost in money."""

from __future__ import annotations

from pydantic import Field

from trunnion.events import Usage
from trunnion.plugin import PluginConfig

_MILLION = 1_000_000


class Prices(PluginConfig):
    """Hold the prices of a million tokens, in whatever currency."""

    input: float = Field(ge=0, description="Price of a million prompt tokens.")
    cached_input: float | None = Field(
        default=None, ge=0, description="Price of a million prompt tokens from the endpoint's cache; None: as input."
    )
    output: float = Field(ge=0, description="Price of a million completion tokens, those of reasoning included.")

    def told(self) -> dict[str, float]:
        """Return the three prices as JSON values, for ``EngineInfo.details["prices"]``."""
        cached = self.input if self.cached_input is None else self.cached_input
        return {"input": self.input, "cached_input": cached, "output": self.output}


def cost(usage: Usage, prices: Prices) -> float:
    """Return what the tokens cost, in the currency of the prices."""
    told = prices.told()
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    fresh = usage.prompt_tokens - cached
    total = fresh * told["input"] + cached * told["cached_input"] + usage.completion_tokens * told["output"]
    return total / _MILLION
