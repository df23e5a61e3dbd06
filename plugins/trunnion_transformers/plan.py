"""Hold what one request asks of the sampler and the scheduler, under the model's own defaults. No torch here."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Self

from trunnion.requests import GenerateRequest, SamplingParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Hold the model's own sampling, from its generation config; ``temperature`` 0 is greedy."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Read a generation config as a mapping.

        A model that says ``do_sample: false`` is greedy; one that says nothing draws at temperature 1, as in
        OpenAI's API and in vLLM.
        """
        greedy = values.get("do_sample") is False
        own = {name: values[name] for name in cls.__dataclass_fields__ if values.get(name) is not None}
        return cls(**({**own, "temperature": 0.0} if greedy else own))


@dataclass(slots=True, kw_only=True, eq=False)
class Plan:
    """Say how one choice is sampled and scheduled. Made on the event loop, then read by the engine's thread alone.

    Attributes:
        adapter: Internal name of the LoRA adapter; None for the base model.
        priority: Lower runs first.
        final: Tokens are told once all of them are there, not with every step.
        salt: Words that keep KV blocks of equal prompts apart; None for the base model without a ``cache_salt``.
        temperature: 0 is greedy.
        top_k: 0 is off.
        top_p: 1 is off.
        min_p: 0 is off.
        seed: None draws from the engine's own generator.
        presence_penalty, frequency_penalty, repetition_penalty, logit_bias: As in the request.
        min_tokens: Tokens before which none of ``ends`` may come.
        ends: Ids that end the choice, ``stop_token_ids`` among them.
        logprobs: Alternatives to report; None for no report.
        prompt_tokens: Length of the prompt, whatever the library makes of it when memory runs short.
        cached_tokens: Prompt tokens found in the cache; None until first scheduled.
        records: Per token its logprob, and the alternatives as (ids, logprobs); written by the engine's thread.
        generator: torch.Generator of the seed, made at the first draw.
        adjusts: Logits are changed before a token is chosen.
        plain: The likeliest token is all that is asked for, so that the sampler need not look.
    """

    adapter: str | None = None
    priority: int = 0
    final: bool = False
    salt: tuple[int, ...] | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] | None = None
    min_tokens: int = 0
    ends: tuple[int, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    records: list[tuple[float, list[int], list[float]]] = field(default_factory=list)
    generator: Any = None
    adjusts: bool = field(init=False)
    plain: bool = field(init=False)

    def __post_init__(self) -> None:
        """Note once what every step asks."""
        self.adjusts = bool(
            self.logit_bias
            or self.min_tokens
            or self.presence_penalty
            or self.frequency_penalty
            or self.repetition_penalty != 1.0
        )
        self.plain = not self.temperature and self.logprobs is None and not self.adjusts

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return itself: the library copies a request that lost its cache, and it stays the same request."""
        return self


def make_plan(
    request: GenerateRequest,
    defaults: Defaults,
    *,
    choice: int,
    adapter: str | None,
    prompt_tokens: int,
    eos: tuple[int, ...],
) -> Plan:
    """Return the plan of one choice of a request; choices of a seeded request draw differently."""
    s = request.sampling
    ends = (*(() if s.ignore_eos else eos), *s.stop_token_ids)
    return Plan(
        adapter=adapter,
        priority=request.priority,
        final=request.delivery == "final",
        salt=make_salt(adapter, request.cache_salt),
        temperature=_temperature(s, defaults),
        top_k=max(0, defaults.top_k if s.top_k is None else s.top_k),
        top_p=defaults.top_p if s.top_p is None else s.top_p,
        min_p=defaults.min_p if s.min_p is None else s.min_p,
        seed=None if s.seed is None else s.seed + choice,
        presence_penalty=s.presence_penalty or 0.0,
        frequency_penalty=s.frequency_penalty or 0.0,
        repetition_penalty=defaults.repetition_penalty if s.repetition_penalty is None else s.repetition_penalty,
        logit_bias={int(token): float(bias) for token, bias in s.logit_bias.items()} if s.logit_bias else None,
        min_tokens=s.min_tokens or 0,
        ends=ends,
        stop_token_ids=s.stop_token_ids if s.ignore_eos else tuple(t for t in s.stop_token_ids if t not in eos),
        logprobs=s.logprobs,
        prompt_tokens=prompt_tokens,
    )


@lru_cache(maxsize=1024)
def make_salt(adapter: str | None, cache_salt: str | None) -> tuple[int, ...] | None:
    """Return four words of 31 bits for an adapter, whose KV differs from the base model's, and a tenant's salt."""
    if adapter is None and cache_salt is None:
        return None
    digest = hashlib.blake2b(repr((adapter, cache_salt)).encode(), digest_size=16).digest()
    return tuple(word & 0x7FFFFFFF for word in array("I", digest))


def salted(tokens: list[int], salt: tuple[int, ...] | None) -> list[int]:
    """Return tokens for hashing alone: the first of them changed by the salt, and so the hash of every block."""
    if salt is None:
        return tokens
    return [token ^ word for token, word in zip(tokens, salt, strict=False)] + tokens[len(salt) :]


def _temperature(s: SamplingParams, defaults: Defaults) -> float:
    """Return the temperature; narrowing what is drawn from a greedy model asks for drawing, at OpenAI's default."""
    if s.temperature is not None:
        return s.temperature
    narrows = s.top_p is not None or s.min_p is not None or (s.top_k or 0) > 0
    return 1.0 if narrows and not defaults.temperature else defaults.temperature
