"""Hold one request as the core sees it: counts of tokens, and where it stands. What they say is no matter here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

JobState = Literal["new", "waiting", "running", "ended"]


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """Count the tokens of one request.

    Attributes:
        prompt, output: Tokens of the prompt, and of the longest choice.
        lengths: Tokens of each choice, where there are several.
        chunk: Tokens after which progress is told; the first and the last tell anyway where they must.
        priority: Lower runs first.
        adapter: LoRA adapter it needs.
        hashes: Hash of each full block of the prompt; empty where nothing can be shared.
        token_ids: Of the prompt, for KV events; may be empty.
        halt_at: Tokens after which it stands still for good, holding what it has; None: never.
        slow: How many times as long it takes as others do.
        hold: Keep slot and blocks after the last token until it is aborted: its reader is not done.
        key: Place in the queue, set when it is added: priority, then arrival.
        progress: Tokens made so far, of each choice.
        computed: Tokens whose KV is in the cache.
        cached: Prompt tokens found in the prefix cache when it was first admitted.
        private, held: Blocks it holds: those no one shares, by number, and those that are shared, by hash.
        stored: Hashes that were looked up or stored so far.
        rest_until: When a slowed job takes part in a step again.
        owner: Whatever the driver keeps with it.
        arrived, admitted, first_token, ended: Times.
    """

    prompt: int
    output: int
    lengths: tuple[int, ...] = ()
    chunk: int = 1
    priority: int = 0
    adapter: str | None = None
    hashes: Sequence[int] = ()
    token_ids: Sequence[int] = ()
    halt_at: int | None = None
    slow: float = 1.0
    hold: bool = False
    key: tuple[int, int] = (0, 0)
    state: JobState = "new"
    halted: bool = False
    rank: int = 0
    progress: int = 0
    computed: int = 0
    cached: int | None = None
    private: int = 0
    held: list[int] = field(default_factory=list)
    stored: int = 0
    preemptions: int = 0
    owner: Any = None
    rest_until: float = 0.0
    arrived: float = 0.0
    admitted: float | None = None
    first_token: float | None = None
    ended: float | None = None

    def __lt__(self, other: Job) -> bool:
        """Compare by the place in the queue."""
        return self.key < other.key

    @property
    def limit(self) -> int:
        """Return the tokens it can make: all, or those up to its halt."""
        return self.output if self.halt_at is None else min(self.halt_at, self.output)

    @property
    def next_report(self) -> int:
        """Return the progress at which the next event is due."""
        return min(self.limit, self.progress + self.chunk - self.progress % self.chunk)

    def width(self, progress: int) -> int:
        """Return how many choices still grow after so many tokens each."""
        return sum(length > progress for length in self.lengths) if self.lengths else 1

    def blocks_at(self, tokens: int, size: int) -> int:
        """Return the KV blocks it takes with so many tokens computed; choices share the full blocks of the prompt."""
        if not self.lengths or tokens <= self.prompt:
            return -(-tokens // size)
        shared = self.prompt // size
        made = tokens - self.prompt
        ends = (-(-(self.prompt + min(made, length)) // size) for length in self.lengths)
        return shared + sum(end - shared for end in ends)


class CoreEvent(NamedTuple):
    """Tell what became of a job: it made ``tokens``, ``finished``, ``halted``; or the whole engine ``crashed``."""

    kind: Literal["tokens", "finished", "halted", "crashed"]
    job: Job | None
    time: float
