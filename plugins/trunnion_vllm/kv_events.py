"""Follow vLLM's KV events: subscribe, decode, put in order, and fetch again what was missed."""

from __future__ import annotations

import shutil
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trunnion.errors import EngineDead

if TYPE_CHECKING:
    import zmq.asyncio

CAPABILITY: Final = "emits_kv_events/1"
WHY_NOT: Final = "it takes kv_events=True, with prefix caching on"
_FOLDER: Final = "trunnion-kv-"
_POLL_MS: Final = 100
"""How long a wait for events lasts before the engine's end is looked for."""
_ANSWER_MS: Final = 1000
"""How long the replay may take for its next message; vLLM's publisher looks for questions ten times a second."""
_QUIET: Final = 1.0
"""Seconds of silence after which the replay is asked once whether the last events were missed."""
_END: Final = -1
_KINDS: Final = {"BlockStored": "stored", "BlockRemoved": "removed", "AllBlocksCleared": "cleared"}


def events_config(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return vLLM's kv_events_config: what the user gave, or sockets in a folder that this user alone can enter.

    vLLM tells the sockets of data-parallel ranks apart by adding the rank to the number behind the last colon of an
    address with "tcp" in it; that holds for a file's name as well, so no port has to be found, or to be open.
    """
    made = dict(given or {})
    if "endpoint" not in made:
        folder = Path(tempfile.gettempdir()) / f"{_FOLDER}{uuid.uuid4().hex}"
        made["endpoint"] = f"ipc://{folder}/tcp-events:1"
        made.setdefault("replay_endpoint", f"ipc://{folder}/tcp-replay:1")
    return {**made, "enable_kv_cache_events": True, "publisher": "zmq"}


def make_folder(config: Any) -> None:
    """Make the folder of the sockets that :func:`events_config` named; ``config`` is a KVEventsConfig or None."""
    if folder := _own_folder(config):
        folder.mkdir(mode=0o700)


def remove_folder(config: Any) -> None:
    """Remove the folder that :func:`make_folder` made, if it did."""
    if folder := _own_folder(config):
        shutil.rmtree(folder, ignore_errors=True)


def _own_folder(config: Any) -> Path | None:
    endpoint = getattr(config, "endpoint", None) or ""
    folder = Path(endpoint.removeprefix("ipc://")).parent
    return folder if endpoint.startswith("ipc://") and folder.name.startswith(_FOLDER) else None


def address(endpoint: str, rank: int) -> str:
    """Return where to connect for a rank, given the endpoint to which vLLM binds."""
    head, _, port = endpoint.replace("*", "127.0.0.1").rpartition(":")
    return f"{head}:{int(port) + rank}" if port.isdigit() else endpoint


def can_follow(vllm_config: Any) -> bool:
    """Tell whether vLLM publishes events at an address that can be connected to."""
    config = vllm_config.kv_events_config
    if config is None or not config.enable_kv_cache_events or config.publisher != "zmq":
        return False
    if not vllm_config.cache_config.enable_prefix_caching:
        return False
    endpoint = config.endpoint
    return endpoint.startswith("ipc://") or ("*" in endpoint and not endpoint.endswith(":0"))


class KVEventReader:
    """Read the events of all ranks in order, from the first that vLLM still holds for replay.

    Without a replay endpoint only what comes after the start is seen; a gap is then told as an event "lost".
    """

    def __init__(
        self,
        config: Any,
        ranks: int,
        *,
        decode: Callable[[bytes], Any],
        alive: Callable[[], bool],
        adapter_name: Callable[[str | None], str | None],
    ) -> None:
        """Take vLLM's KVEventsConfig, the number of data-parallel ranks, and how adapters are called outside."""
        self._config = config
        self._ranks = ranks
        self._alive = alive
        self._adapter_name = adapter_name
        self._decode = decode
        self._next: defaultdict[int, int] = defaultdict(int)  # by rank

    async def read(self, ended: Callable[[], bool]) -> AsyncGenerator[Mapping[str, Any], None]:
        """Yield events until the engine is stopped. Raises :class:`EngineDead` when it died."""
        import zmq.asyncio

        context = zmq.asyncio.Context()
        subscriber = context.socket(zmq.SUB)
        try:
            subscriber.set_hwm(0)  # else what a slow reader does not take is dropped
            subscriber.setsockopt_string(zmq.SUBSCRIBE, self._config.topic)
            for rank in range(self._ranks):
                subscriber.connect(address(self._config.endpoint, rank))
            last, checked = time.monotonic(), False
            for event in await self._replay_all(context):
                yield event
            while not ended():
                if await subscriber.poll(_POLL_MS):
                    _, number, payload = await subscriber.recv_multipart()
                    last, checked = time.monotonic(), False
                    for event in await self._take(context, int.from_bytes(number, "big"), payload):
                        yield event
                elif not checked and time.monotonic() - last > _QUIET:
                    checked = True
                    for event in await self._replay_all(context):
                        yield event
                if not self._alive() and not ended():
                    raise EngineDead("the vLLM engine died; its KV events end here")
        finally:
            subscriber.close(linger=0)
            context.destroy(linger=0)

    async def _take(self, context: zmq.asyncio.Context, number: int, payload: bytes) -> list[Mapping[str, Any]]:
        """Return the events of one message, preceded by those that should have come before."""
        batch = self._decode(payload)
        rank = batch.data_parallel_rank or 0
        events = await self._replay(context, rank) if number > self._next[rank] else []
        return events + self._accept(rank, number, batch)

    def _accept(self, rank: int, number: int, batch: Any) -> list[Mapping[str, Any]]:
        """Return the events of a batch; none if it was seen, one more if others before it are lost."""
        expected = self._next[rank]
        if number < expected:
            return []
        self._next[rank] = number + 1
        head = {"seq": number, "rank": rank, "timestamp": batch.ts}
        lost = [{**head, "type": "lost", "missing": number - expected}] if number > expected else []
        known = (event for event in batch.events if type(event).__name__ in _KINDS)
        return [*lost, *({**head, **self._fields(event)} for event in known)]

    def _fields(self, event: Any) -> dict[str, Any]:
        kind = _KINDS[type(event).__name__]
        if kind == "cleared":
            return {"type": kind}
        fields = {"type": kind, "block_hashes": tuple(event.block_hashes), "medium": event.medium}
        if kind == "stored":
            fields["parent_block_hash"] = event.parent_block_hash
            fields["token_ids"] = tuple(event.token_ids)
            fields["block_size"] = event.block_size
            fields["adapter"] = self._adapter_name(getattr(event, "lora_name", None))
        return fields

    async def _replay_all(self, context: zmq.asyncio.Context) -> list[Mapping[str, Any]]:
        return [event for rank in range(self._ranks) for event in await self._replay(context, rank)]

    async def _replay(self, context: zmq.asyncio.Context, rank: int) -> list[Mapping[str, Any]]:
        """Ask a rank for what it published since the last event seen. Nothing if it keeps nothing, or is gone."""
        import zmq

        if self._config.replay_endpoint is None:
            return []
        events: list[Mapping[str, Any]] = []
        with context.socket(zmq.DEALER) as asker:
            asker.setsockopt(zmq.LINGER, 0)
            asker.set_hwm(0)
            asker.connect(address(self._config.replay_endpoint, rank))
            while await self._ask(asker, rank, events):
                pass
        return events

    async def _ask(self, asker: zmq.asyncio.Socket, rank: int, events: list[Mapping[str, Any]]) -> bool:
        """Take one answer of the replay; True if part of it was dropped on the way, so that it is to be asked again.

        What is missing at the start of an answer is lost: vLLM keeps the newest batches alone.
        """
        await asker.send_multipart([b"", self._next[rank].to_bytes(8, "big")])
        first, dropped = True, False
        while await asker.poll(_ANSWER_MS):
            *_, number, payload = await asker.recv_multipart()
            seq = int.from_bytes(number, "big", signed=True)
            if seq == _END:
                break
            dropped = dropped or (seq > self._next[rank] and not first)
            if not dropped:
                events += self._accept(rank, seq, self._decode(payload))
            first = False
        return dropped
