"""Route by affinity: session, adapter and prompt prefix, each worth a number of requests' load."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby

from trunnion import Candidate, GenerateRequest, MessagesPrompt, RankedGroup, Ranking, TextPrompt

from .config import AffinityConfig
from .load import load_of

_MAX_BLOCKS = 64


def _joined(messages: Sequence[Mapping[str, object]], limit: int) -> str:
    """Return the start of a conversation as text, without writing out what lies behind the limit."""
    parts: list[str] = []
    length = 0
    for message in messages:
        part = f"{message.get('role')}:{message.get('content')}\n"
        parts.append(part)
        length += len(part)
        if length >= limit:
            break
    return "".join(parts)[:limit]


class _Index:
    """Map keys to replica ids, forgetting the least recently used beyond a bound."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._entries: OrderedDict[Hashable, str] = OrderedDict()

    def get(self, key: Hashable) -> str | None:
        """Return the replica, and mark the entry as used."""
        if key in self._entries:
            self._entries.move_to_end(key)
        return self._entries.get(key)

    def put(self, key: Hashable, replica: str) -> None:
        """Remember the replica."""
        self._entries[key] = replica
        self._entries.move_to_end(key)
        while len(self._entries) > self._bound:
            self._entries.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        """Forget one entry."""
        self._entries.pop(key, None)

    def keep(self, replicas: frozenset[str]) -> None:
        """Forget replicas that are gone."""
        for key in [key for key, replica in self._entries.items() if replica not in replicas]:
            del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)


class Affinity:
    """Score a replica by its load less what its affinities are worth; the lowest score comes first."""

    def __init__(self, config: AffinityConfig) -> None:
        self._config = config
        self._sessions = _Index(config.max_entries)
        self._prefixes = _Index(config.max_entries)

    def rank(self, request: GenerateRequest, candidates: Sequence[Candidate]) -> Ranking:
        """Return groups of equal score with the affinities that made it."""
        session = self._sessions.get(request.session) if request.session is not None else None
        shares = self._prefix_shares(request)
        scored = []
        for candidate in candidates:
            if candidate.weight > 0:
                score, reason = self._score(request, candidate, session, shares.get(candidate.id, 0.0))
                scored.append((score, reason, candidate))
        scored.sort(key=lambda entry: (entry[0], entry[1]))
        groups = [
            RankedGroup(candidates=tuple(entry[2] for entry in group), reason=reason)
            for (_, reason), group in groupby(scored, key=lambda entry: (entry[0], entry[1]))
        ]
        return Ranking(groups=tuple(groups))

    def _score(
        self, request: GenerateRequest, candidate: Candidate, session: str | None, share: float
    ) -> tuple[float, str]:
        config = self._config
        load = load_of(candidate, config.max_report_age)
        score, reasons = load, [f"load {load:g}"]
        if session == candidate.id:
            score -= config.session
            reasons.append("holds the session")
        if request.adapter is not None and request.adapter in candidate.adapters:
            score -= config.adapter
            reasons.append("holds the adapter")
        if share:
            score -= config.prefix * share
            reasons.append(f"saw {share:.0%} of the prefix")
        return score, ", ".join(reasons)

    def _blocks(self, request: GenerateRequest) -> list[Hashable]:
        """Return a key for each block-aligned prefix of the prompt, the shortest first; long ones are cut."""
        prompt, size = request.prompt, self._config.prefix_block
        if isinstance(prompt, TextPrompt):
            whole: Sequence[object] = prompt.text[: _MAX_BLOCKS * size]
        elif isinstance(prompt, MessagesPrompt):
            whole = _joined(prompt.messages, _MAX_BLOCKS * size)
        else:
            whole = tuple(prompt.token_ids[: _MAX_BLOCKS * size])
        keys: list[Hashable] = []
        chain: Hashable = request.adapter
        for end in range(size, len(whole) + 1, size):
            chain = hash((chain, whole[end - size : end]))
            keys.append(chain)
        return keys

    def _prefix_shares(self, request: GenerateRequest) -> dict[str, float]:
        """Return, for each replica that saw the prompt's start, the part of its blocks it saw."""
        keys = self._blocks(request)
        shares: dict[str, float] = {}
        for position, key in enumerate(keys, start=1):
            replica = self._prefixes.get(key)
            if replica is None:
                break
            shares[replica] = position / len(keys)
        return shares

    def routed(self, request: GenerateRequest, candidate: Candidate) -> None:
        """Remember where the session and the prefix went."""
        if request.session is not None:
            self._sessions.put(request.session, candidate.id)
        for key in self._blocks(request):
            self._prefixes.put(key, candidate.id)

    def completed(self, request: GenerateRequest, candidate: Candidate, *, ok: bool) -> None:
        """Forget the session of a request that failed, so that its next try may go elsewhere."""
        if not ok and request.session is not None and self._sessions.get(request.session) == candidate.id:
            self._sessions.drop(request.session)

    def replicas_changed(self, candidates: Sequence[Candidate]) -> None:
        """Forget replicas that are gone."""
        alive = frozenset(candidate.id for candidate in candidates)
        self._sessions.keep(alive)
        self._prefixes.keep(alive)
