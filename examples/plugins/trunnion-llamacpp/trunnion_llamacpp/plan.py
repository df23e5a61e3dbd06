"""Hold what one choice of a request asks of the sampler, under the model's own defaults. No library here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Self

from trunnion import GenerateRequest, SamplingParams
from trunnion.errors import InvalidArgument

_SEEDS: Final = 2**32 - 1  # one less than there are: llama.cpp takes the last for "at random"


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Hold the model's own sampling; ``temperature`` 0 is greedy. A file that says nothing draws at 1, like OpenAI."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @classmethod
    def read(cls, meta: Callable[[str], str | None]) -> Self:
        """Read ``general.sampling.*`` of a GGUF file; ``meta`` returns a value as text."""
        found: dict[str, float] = {}
        names = {"temp": "temperature", "penalty_repeat": "repetition_penalty"}
        for key in ("temp", "top_k", "top_p", "min_p", "penalty_repeat"):
            text = meta(f"general.sampling.{key}")
            if text is not None:
                found[names.get(key, key)] = int(text) if key == "top_k" else float(text)
        return cls(**found)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Say how one choice is sampled and when it ends.

    Attributes:
        temperature, top_k, top_p, min_p: 0 is greedy; 0, 1 and 0 are off.
        seed: Between 0 and 2**32 - 2.
        presence_penalty, frequency_penalty: Over the output.
        repetition_penalty: Over prompt and output; 1 is off.
        logit_bias: Added to the logits, by token id.
        min_tokens: Tokens before which none of ``ends`` may come.
        max_tokens: Tokens at most.
        ends: Ids that end the choice, ``stop_token_ids`` among them.
        stop_token_ids: Ids that are told as ``stop_reason``.
        logprobs: Alternatives to report; None for no report.
        grammar: GBNF that the text must satisfy.
        skip_special_tokens: Whether the text leaves special tokens out.
    """

    max_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    min_tokens: int = 0
    ends: frozenset[int] = frozenset()
    stop_token_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
    grammar: str | None = None
    skip_special_tokens: bool = True

    @property
    def adjusts(self) -> bool:
        """Tell whether bias or penalties change the logits."""
        penalties = self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0
        return bool(self.logit_bias or penalties)

    @property
    def plain(self) -> bool:
        """Tell whether the likeliest token is all that is asked for."""
        return not (self.temperature or self.adjusts or self.min_tokens or self.grammar is not None)


def make_plan(
    request: GenerateRequest,
    defaults: Defaults,
    *,
    choice: int,
    seed: int,
    max_tokens: int,
    ends: frozenset[int],
    vocabulary: int,
    grammar: str | None,
) -> Plan:
    """Return the plan of one choice; choices of a seeded request draw differently.

    Raises:
        InvalidArgument: A token id is none of the model's.
    """
    s = request.sampling
    bias = {int(token): float(value) for token, value in (s.logit_bias or {}).items()}
    for name, ids in (("logit_bias", bias), ("stop_token_ids", s.stop_token_ids)):
        if wrong := [token for token in ids if not 0 <= token < vocabulary]:
            message = f"{name} holds token id {wrong[0]}, but the model knows ids from 0 to {vocabulary - 1}"
            raise InvalidArgument(message, param=name)
    stops = frozenset(s.stop_token_ids)
    return Plan(
        max_tokens=max_tokens,
        temperature=_temperature(s, defaults),
        top_k=max(0, defaults.top_k if s.top_k is None else s.top_k),
        top_p=defaults.top_p if s.top_p is None else s.top_p,
        min_p=defaults.min_p if s.min_p is None else s.min_p,
        seed=((seed if s.seed is None else s.seed) + choice) % _SEEDS,
        presence_penalty=s.presence_penalty or 0.0,
        frequency_penalty=s.frequency_penalty or 0.0,
        repetition_penalty=defaults.repetition_penalty if s.repetition_penalty is None else s.repetition_penalty,
        logit_bias=bias,
        min_tokens=s.min_tokens or 0,
        ends=stops if s.ignore_eos else stops | ends,
        stop_token_ids=stops if s.ignore_eos else stops - ends,
        logprobs=s.logprobs,
        grammar=grammar,
        skip_special_tokens=s.skip_special_tokens,
    )


def _temperature(s: SamplingParams, defaults: Defaults) -> float:
    """Return the temperature; narrowing what is drawn from a greedy model asks for drawing, at OpenAI's default."""
    if s.temperature is not None:
        return s.temperature
    narrows = s.top_p is not None or s.min_p is not None or (s.top_k or 0) > 0
    return 1.0 if narrows and not defaults.temperature else defaults.temperature
