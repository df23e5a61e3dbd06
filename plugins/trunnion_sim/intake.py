"""Turn requests into jobs for the core, and into the answers they will give."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from trunnion import GenerateRequest
from trunnion.errors import ContextOverflow, InvalidArgument, Overloaded

from .answer import Answer
from .config import SimConfig
from .faults import BREAKS, FaultRule, Faults
from .jobs import Job
from .kv_blocks import block_hashes
from .speaker import Speaker
from .tokens import count_prompt_tokens, prompt_text, prompt_token_ids


class Taken(NamedTuple):
    """Hold a request's job, what its choices will say, and the fault it meets."""

    job: Job
    answers: list[Answer]
    rule: FaultRule | None

    @property
    def fault(self) -> str:
        """Return the kind of the fault; "" where all goes well."""
        return "" if self.rule is None else self.rule.kind


class Intake:
    """Count, check and answer requests, in the order they come."""

    def __init__(self, config: SimConfig, faults: Faults, speaker: Speaker) -> None:
        self._config = config
        self._faults = faults
        self._speaker = speaker
        self._numbers = itertools.count()
        self._hold = config.instant

    def strike(self, text: str, now: float) -> FaultRule | None:
        """Return the fault that the next request meets. Raises :class:`Overloaded` if it is to be refused."""
        if not self._faults:
            return None
        rule = self._faults.strike(text, next(self._numbers), now)
        if rule is not None and rule.kind == "refuse":
            raise Overloaded("the simulated engine refuses this request on demand", retry_after=1.0)
        return rule

    def take(self, request: GenerateRequest, now: float, owner: Any) -> Taken:
        """Return the job of a request.

        Raises:
            Overloaded: A fault refuses it.
            ContextOverflow: It does not fit.
            InvalidArgument: It contradicts itself, or asks for more than can be made.
        """
        config = self._config
        if request.extra and (extra := request.extra.get("sim")):
            name = next(iter(extra))
            raise InvalidArgument(f"extra['sim'] has no field {name!r}; it has none", param=f"extra.sim.{name}")
        text = prompt_text(request.prompt)
        rule = self.strike(text, now)
        prompt_tokens = count_prompt_tokens(request.prompt, text)
        check_length(prompt_tokens, request.sampling.max_tokens or 1, config.max_model_len)
        malformed = rule is not None and rule.kind == "malformed"
        answers = self._speaker.answers(request, text, prompt_tokens, malformed=malformed)
        lengths = tuple([len(answer.ids) for answer in answers])
        length = max(lengths)
        hashes: Sequence[int] = ()
        token_ids: Sequence[int] = ()
        if config.enable_prefix_caching and prompt_tokens >= config.block_size:
            token_ids = prompt_token_ids(request.prompt, text)
            hashes = block_hashes(token_ids, config.block_size, adapter=request.adapter, salt=request.cache_salt)
        job = Job(
            prompt=prompt_tokens,
            output=length,
            lengths=lengths if len(lengths) > 1 else (),
            chunk=max(1, length) if request.delivery == "final" else config.tokens_per_event,
            priority=request.priority,
            adapter=request.adapter,
            hashes=hashes,
            token_ids=token_ids if config.kv_events else (),
            hold=self._hold,
            owner=owner,
        )
        if rule is not None:
            if rule.kind in BREAKS:
                job.halt_at = max(0, min(rule.after, length - 1))
            elif rule.kind == "slow":
                job.slow = rule.factor
        return Taken(job, answers, rule)


def check_length(prompt_tokens: int, wanted: int, context: int) -> None:
    """Refuse what does not fit. Raises :class:`ContextOverflow`."""
    if prompt_tokens + wanted > context:
        raise ContextOverflow(
            f"{prompt_tokens} prompt tokens and {wanted} to generate exceed the context length of {context}; "
            "shorten the prompt or lower max_tokens",
            param="messages",
            details={"prompt_tokens": prompt_tokens, "context_length": context},
        )
