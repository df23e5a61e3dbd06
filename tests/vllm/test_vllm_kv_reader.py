"""The order of KV events, and what becomes of those that get lost, against a publisher that loses what it is told to.

It speaks as vLLM's does: PUB with (topic, number, payload), and a ROUTER that replays what it holds.
"""

import asyncio
import json
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from trunnion.errors import EngineDead
from trunnion_vllm.kv_events import KVEventReader, address, events_config, make_folder, remove_folder

zmq = pytest.importorskip("zmq")
zmq_asyncio = pytest.importorskip("zmq.asyncio")


class BlockRemoved(SimpleNamespace):
    pass


class BlockStored(SimpleNamespace):
    pass


def decode(payload):
    rank, block = json.loads(payload)
    if block % 2:
        events = [BlockRemoved(block_hashes=[block], medium="CPU")]
    else:
        fields = {"parent_block_hash": None, "token_ids": [1, 2], "block_size": 2, "lora_name": "x#2"}
        events = [BlockStored(block_hashes=[block], medium="CPU", **fields)]
    return SimpleNamespace(ts=0.5, data_parallel_rank=rank, events=events)


class Publisher:
    def __init__(self, context, config, rank=0):
        self.rank = rank
        self.kept = []
        self.number = 0
        self.pub, self.router = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
        self.pub.bind(address(config.endpoint, rank))
        if config.replay_endpoint:
            self.router.bind(address(config.replay_endpoint, rank))
            self.task = asyncio.create_task(self.replay())

    async def send(self, *, lost=False, kept=True):
        number, self.number = self.number, self.number + 1
        payload = json.dumps([self.rank, number]).encode()
        if kept:
            self.kept.append((number, payload))
        if not lost:
            await self.pub.send_multipart((b"", number.to_bytes(8, "big"), payload))

    async def replay(self):
        while True:
            who, _, start = await self.router.recv_multipart()
            for number, payload in self.kept:
                if number >= int.from_bytes(start, "big"):
                    await self.router.send_multipart((who, b"", b"", number.to_bytes(8, "big"), payload))
            await self.router.send_multipart((who, b"", b"", (-1).to_bytes(8, "big", signed=True), b""))


@asynccontextmanager
async def publishing(*, ranks=1, replay=True):
    config = SimpleNamespace(**{"topic": "", "replay_endpoint": None, **events_config({})})
    if not replay:
        config.replay_endpoint = None
    make_folder(config)
    context = zmq_asyncio.Context()
    publishers = [Publisher(context, config, rank) for rank in range(ranks)]
    try:
        yield config, publishers
    finally:
        for publisher in publishers:
            if replay:
                publisher.task.cancel()
        context.destroy(linger=0)
        remove_folder(config)


def reader(config, ranks=1, alive=lambda: True):
    return KVEventReader(config, ranks, decode=decode, alive=alive, adapter_name=lambda name: name and name[0])


async def take(events, count):
    async with asyncio.timeout(20):
        return [await anext(events) for _ in range(count)]


async def test_late_readers_get_what_is_still_held():
    async with publishing() as (config, (publisher,)):
        for _ in range(3):
            await publisher.send()
        async with aclosing(reader(config).read(lambda: False)) as events:
            found = await take(events, 3)
            await publisher.send()
            found += await take(events, 1)
    assert [event["seq"] for event in found] == [0, 1, 2, 3]
    assert found[0] == {
        "seq": 0,
        "rank": 0,
        "timestamp": 0.5,
        "type": "stored",
        "block_hashes": (0,),
        "medium": "CPU",
        "parent_block_hash": None,
        "token_ids": (1, 2),
        "block_size": 2,
        "adapter": "x",
    }
    assert found[1]["type"] == "removed"


@pytest.mark.parametrize("then", ["more comes", "silence"])
async def test_what_was_missed_is_fetched_again(then):
    async with publishing() as (config, (publisher,)), aclosing(reader(config).read(lambda: False)) as events:
        await publisher.send()
        assert [event["seq"] for event in await take(events, 1)] == [0]
        await publisher.send(lost=True)
        await publisher.send(lost=True)
        if then == "more comes":
            await publisher.send()
        wanted = [1, 2, 3] if then == "more comes" else [1, 2]
        assert [event["seq"] for event in await take(events, len(wanted))] == wanted


async def test_what_is_lost_for_good_is_told():
    async with publishing() as (config, (publisher,)), aclosing(reader(config).read(lambda: False)) as events:
        await publisher.send()
        await take(events, 1)
        await publisher.send(lost=True, kept=False)
        await publisher.send()
        lost, following = await take(events, 2)
    assert (lost["type"], lost["missing"], lost["seq"]) == ("lost", 1, 2)
    assert following["seq"] == 2


async def test_without_a_replay_a_gap_is_told():
    async with (
        publishing(replay=False) as (config, (publisher,)),
        aclosing(reader(config).read(lambda: False)) as events,
    ):
        waiting = asyncio.ensure_future(anext(events))
        while not waiting.done():  # until the subscription has arrived
            await publisher.send()
            await asyncio.sleep(0.01)
        assert (await waiting)["type"] == "lost"
        number = (await take(events, 1))[0]["seq"]
        await publisher.send(lost=True)
        await publisher.send()
        async for event in events:
            if event["type"] == "lost":
                assert event["missing"] == 1
                break
            number += 1
            assert event["seq"] == number


async def test_each_rank_counts_for_itself():
    async with publishing(ranks=2) as (config, publishers):
        for publisher in publishers:
            await publisher.send()
            await publisher.send()
        async with aclosing(reader(config, 2).read(lambda: False)) as events:
            found = await take(events, 4)
    assert [(event["rank"], event["seq"]) for event in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]


async def test_events_end_with_the_engine():
    async with publishing() as (config, _):
        assert [event async for event in reader(config).read(lambda: True)] == []
        with pytest.raises(EngineDead, match="died"):
            await anext(reader(config, alive=lambda: False).read(lambda: False))


@pytest.mark.parametrize(
    ("endpoint", "rank", "wanted"),
    [
        ("tcp://*:5557", 0, "tcp://127.0.0.1:5557"),
        ("tcp://*:5557", 2, "tcp://127.0.0.1:5559"),
        ("ipc:///tmp/x/tcp-events:1", 1, "ipc:///tmp/x/tcp-events:2"),
        ("ipc:///tmp/x/events", 0, "ipc:///tmp/x/events"),
    ],
)
def test_ranks_have_addresses_of_their_own(endpoint, rank, wanted):
    assert address(endpoint, rank) == wanted


def test_the_sockets_lie_where_this_user_alone_can_go():
    config = SimpleNamespace(**events_config(None))
    make_folder(config)
    folder = config.endpoint.removeprefix("ipc://").rpartition("/")[0]
    assert Path(folder).stat().st_mode & 0o777 == 0o700
    remove_folder(config)
    assert not Path(folder).exists()
