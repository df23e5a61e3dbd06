"""Reach the job's desk from a replica: from the threads that bring blocks, and from the engine's loop."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import ray

from trunnion import PipelineSpec, Prepared
from trunnion.row_tasks import RowAnswer, RowRequest
from trunnion_batch.answering import Share, is_deterministic, request_keys
from trunnion_batch.journal.answers import pack, unpack

from .block_count import BlockCount
from .desk import Call, Desk
from .failures import find_error

_WRITE_SECONDS: Final = 0.05
_WRITE_ROWS: Final = 64


class DeskClient:
    """Speak for one replica. Made in the actor; ``ray.get`` of what the desk raises is the desk's own error."""

    def __init__(self, desk: Any, spec: PipelineSpec, *, keeps: bool, share: Share = "deterministic") -> None:
        """Say hello.

        Args:
            desk: The actor's handle.
            spec: What makes the keys.
            keeps: Whether there is a journal or a cache to write answers to.
            share: Whose answers the cache is for.
        """
        self._desk = desk
        self._keys = request_keys(spec)
        self._share = share
        self._calls: Counter[str] = Counter()
        self.keeps = keeps
        self.name = ray.get_runtime_context().get_actor_id() or uuid.uuid4().hex
        self._get(desk.hello.remote(self.name, uuid.uuid4().hex))

    @staticmethod
    def _get(reference: Any) -> Any:
        try:
            return ray.get(reference)
        except Exception as error:
            ours = find_error(error)
            if ours is None:
                raise
            raise ours from error

    def call(self) -> Call:
        """Name the block that the current thread brings."""
        task = ray.get_runtime_context().get_task_id() or uuid.uuid4().hex
        self._calls[task] += 1
        return task, self._calls[task]

    def begin(self, call: Call, requests: Sequence[tuple[RowRequest, Prepared | None] | None]) -> BlockBook:
        """Begin a block of requests, None for rows that have none."""
        keys = [None if one is None else self._keys.key(*one) for one in requests]
        shared = [
            self.keeps and one is not None and (self._share == "all" or is_deterministic(one[0])) for one in requests
        ]
        deaths, answers = self._get(self._desk.begin.remote(self.name, call, keys, shared))
        known = [None if answer is None else unpack(answer) for answer in answers]
        return BlockBook(self, call, keys, shared, deaths, known)

    def end(self, call: Call, count: BlockCount, restarts: int) -> None:
        """End a block. Raises the error that ends the job where too many rows failed."""
        self._get(self._desk.end.remote(self.name, call, count, restarts))

    def underway(self, parts: Mapping[Call, BlockCount], warned: Sequence[str]) -> None:
        """Tell how far the blocks have come that have not ended, and what was warned of; waits for nothing."""
        self._desk.underway.remote(self.name, parts, warned)

    def write(self, call: Call, answers: list[tuple[bytes, bytes, bool]]) -> Any:
        """Send answers; returns what :meth:`settle` waits for."""
        return self._desk.write.remote(call, answers)

    def settle(self, references: Sequence[Any]) -> None:
        """Wait until answers are written. Raises that they cannot be."""
        self._get(list(references))

    async def entering(self, key: bytes) -> None:
        """Tell that a row that was at a death goes to the engine, and wait until that is known."""
        await self._desk.entering.remote(self.name, key)

    def left(self, key: bytes) -> None:
        """Tell that it is through."""
        self._desk.left.remote(self.name, key)


class BlockBook:
    """Hold what the desk knows of one block's rows, and gather what it is to be told."""

    def __init__(  # noqa: PLR0917 - one column each
        self,
        client: DeskClient,
        call: Call,
        keys: list[bytes | None],
        shared: list[bool],
        deaths: list[int],
        known: list[RowAnswer | None],
    ) -> None:
        self.call = call
        self.deaths = deaths
        self.known = known
        self._client = client
        self._keys = keys
        self._shared = shared
        self._answers: list[tuple[bytes, bytes, bool]] = []
        self._sent: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None

    def answered(self, index: int, completion: RowAnswer) -> None:
        """Take the answer of a row, on the loop."""
        key = self._keys[index]
        if not self._client.keeps or key is None:
            return
        self._answers.append((key, pack(completion), self._shared[index]))
        if len(self._answers) >= _WRITE_ROWS:
            self._send()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_SECONDS, self._send)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._answers:
            answers, self._answers = self._answers, []
            self._sent.append(self._client.write(self.call, answers))

    def last(self) -> None:
        """Send what is left, on the loop, once every row has its outcome."""
        self._send()

    def settle(self) -> None:
        """Wait, on the block's own thread, until every answer is written."""
        if self._sent:
            self._client.settle(self._sent)

    async def entering(self, index: int) -> None:
        """See :meth:`DeskClient.entering`."""
        key = self._keys[index]
        assert key is not None
        await self._client.entering(key)

    def left(self, index: int) -> None:
        """See :meth:`DeskClient.left`."""
        key = self._keys[index]
        assert key is not None
        self._client.left(key)


def make_desk(**settings: Any) -> Any:
    """Start a job's desk on this node, and return its handle; it goes with the last handle."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here, max_restarts=3, max_task_retries=3)(Desk)
    return actor.remote(**settings)
