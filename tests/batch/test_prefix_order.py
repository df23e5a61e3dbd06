"""Rows that share a prefix reach the engine close together; on the simulator's prefix cache that is seen."""

import asyncio
import random

import pytest

from trunnion import PipelineSpec, TextPrompt, TokensPrompt, engine_spec
from trunnion.rows import RowOptions
from trunnion_batch.account import Account
from trunnion_batch.answering import Answerer
from trunnion_batch.prefix_order import PrefixQueue, prompt_key
from trunnion_batch.recovery import Recovery
from trunnion_batch.row_input import InputRow
from trunnion_batch.run import BatchRun
from trunnion_batch.supervisor import Supervisor

BLOCKS = 100
SETTINGS = {"block_size": 4, "num_gpu_blocks_override": BLOCKS, "max_num_seqs": 4, "step": {"base": 1e-4}}


def test_keys_are_ordered_as_tokens_are():
    lists = [[1], [1, 2], [1, 300], [2], [256], [70_000, 1]]
    assert [prompt_key(TokensPrompt(token_ids=ids)) for ids in lists] == sorted(
        prompt_key(TokensPrompt(token_ids=ids)) for ids in lists
    )
    assert prompt_key(TextPrompt(text="a b")) < prompt_key(TextPrompt(text="a c"))


async def test_who_waits_goes_in_one_round_from_the_last():
    queue = PrefixQueue(1)
    went = []

    async def row(key):
        async with queue.slot(key):
            went.append(key)
            await asyncio.sleep(0)

    async with queue.slot(b"m"):
        tasks = [asyncio.ensure_future(row(key)) for key in (b"a", b"z", b"mb", b"n", b"a")]
        await asyncio.sleep(0)
        assert queue.waiting == 5
    await asyncio.gather(*tasks)
    assert went == [b"mb", b"n", b"z", b"a", b"a"]


async def test_a_row_that_is_given_up_leaves_no_slot_behind():
    queue = PrefixQueue(1)

    async def row():
        async with queue.slot(b"x"):
            await asyncio.sleep(10)

    first, second, third = (asyncio.ensure_future(row()) for _ in range(3))
    await asyncio.sleep(0.01)
    second.cancel()
    first.cancel()
    await asyncio.sleep(0.01)
    assert queue.waiting == 0
    third.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    async with asyncio.timeout(1), queue.slot(b"y"):
        pass


def shared(share, rows=600, group=10):
    """Return rows, shuffled: of each prompt's 40 words, the given share is that of its group."""
    draw = random.Random(3)
    common = round(40 * share)
    made = []
    for index in range(rows):
        head = [f"g{index // group}w{word}" for word in range(common)]
        made.append(" ".join([*head, *(f"r{index}w{word}" for word in range(40 - common))]))
    draw.shuffle(made)
    return made


async def cached(prompts, window):
    """Return the share of prompt tokens that the cache had, and the order rows came out in."""
    spec = PipelineSpec(engine=engine_spec("sim", config=SETTINGS))
    supervisor = Supervisor(spec, Recovery())
    account, out = Account(), []

    class Sink:
        def write(self, row):
            out.append(row["prompt"])

        def flush(self):
            pass

    async def chunks():
        yield [InputRow(row={"prompt": prompt, "sampling_params": {"max_tokens": 1}}) for prompt in prompts]

    await supervisor.start()
    try:
        order = None if window is None else PrefixQueue(4)
        batch = BatchRun(
            Answerer(supervisor, spec, order=order), RowOptions(), Sink(), account, concurrency=window or 4
        )
        await asyncio.wait_for(batch.run(chunks()), 120)
    finally:
        await supervisor.stop()
    assert out == prompts
    assert account.ok == len(prompts)
    return account.cached_tokens / account.prompt_tokens


@pytest.mark.parametrize("share", [0.5, 0.9])
async def test_a_window_gets_nearly_what_sorting_everything_would(share):
    prompts = shared(share)
    best = await cached(sorted(prompts), None)
    as_they_come = await cached(prompts, None)
    with_window = await cached(prompts, 600)
    assert best > 0.3
    assert with_window >= 0.95 * best
    assert as_they_come < 0.8 * best


async def test_nothing_is_lost_where_nothing_is_shared():
    prompts = shared(0.0, rows=200)
    assert await cached(prompts, 100) == await cached(prompts, None) == 0


async def test_a_replica_orders_the_rows_it_holds():
    pytest.importorskip("ray")
    from trunnion import GenerateRequest, SamplingParams
    from trunnion_ray.data.runner import BlockRunner

    prompts = shared(0.9, rows=300)
    requests = [
        GenerateRequest(prompt=TextPrompt(text=text), sampling=SamplingParams(max_tokens=1), delivery="final")
        for text in prompts
    ]

    def cached_by(**options):
        runner = BlockRunner(PipelineSpec(engine=engine_spec("sim", config=SETTINGS)), max_pending=4, **options)
        try:
            answers = runner.run(requests)
        finally:
            runner.close()
        assert [answer.prompt.text for answer in answers] == prompts
        return sum(answer.completion.usage.cached_tokens for answer in answers)

    ordered, plain = await asyncio.to_thread(lambda: (cached_by(prefix_order=True), cached_by()))
    assert ordered > 1.3 * plain
