"""Define how long one step of a batch takes."""

from __future__ import annotations

import math

from pydantic import Field

from trunnion import PluginConfig


class StepTime(PluginConfig):
    """Set a step's time: ``base + per_sequence * decodes + per_context_token * context + per_prompt_token * prefill``.

    ``decodes`` are the sequences that get a token, ``context`` the tokens whose KV they and the prefill chunks read,
    ``prefill`` the prompt tokens computed. All in seconds.
    """

    base: float = Field(0.0, ge=0, description="Seconds of any step: the weights are read once, the kernels launched.")
    per_sequence: float = Field(0.0, ge=0, description="Seconds per sequence that decodes.")
    per_context_token: float = Field(0.0, ge=0, description="Seconds per token of context whose KV is read.")
    per_prompt_token: float = Field(0.0, ge=0, description="Seconds per prompt token computed.")

    @property
    def free(self) -> bool:
        """Tell whether steps take no time."""
        return not (self.base or self.per_sequence or self.per_context_token or self.per_prompt_token)

    def seconds(self, decodes: float, context: float, prefill: float = 0) -> float:
        """Return the seconds of one step."""
        work = self.per_sequence * decodes + self.per_context_token * context + self.per_prompt_token * prefill
        return self.base + work

    def run(self, steps: int, decodes: int, context: int) -> float:
        """Return the seconds of so many steps in a row, each of which adds a token to every context."""
        growth = decodes * steps * (steps - 1) / 2
        return steps * self.seconds(decodes, context) + self.per_context_token * growth

    def steps_within(self, seconds: float, most: int, decodes: int, context: int) -> int:
        """Return the fewest steps, from 1 to ``most``, that take at least so many seconds."""
        low, high = 1, most
        if self.run(1, decodes, context) > 0:
            high = min(most, max(1, math.ceil(seconds / self.run(1, decodes, context))))
        while low < high:
            middle = (low + high) // 2
            if self.run(middle, decodes, context) >= seconds:
                high = middle
            else:
                low = middle + 1
        return low
