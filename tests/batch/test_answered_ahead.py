"""Rows that are answered are counted, also while they wait for a slower one before them."""

import asyncio

from trunnion import ChoiceDelta, Completion, GenerateEvent, Usage
from trunnion.errors import Overloaded
from trunnion.rows import RowOptions
from trunnion_batch.account import Account
from trunnion_batch.answering import Answered
from trunnion_batch.row_input import InputRow
from trunnion_batch.run import BatchRun


class Model:
    """Answer at once, but for one row; some of it was known before."""

    prices = None

    def __init__(self):
        self.slow = asyncio.Event()

    async def answer(self, request):
        prompt = repr(request.prompt)
        if "slow" in prompt:
            await self.slow.wait()
        if "bad" in prompt:
            raise Overloaded("full")
        completion = Completion()
        choice = ChoiceDelta(text="x", finish_reason="stop")
        completion.add(GenerateEvent(choices=(choice,), usage=Usage(prompt_tokens=2, completion_tokens=1)))
        return Answered(completion, replayed="known" in prompt)


class Sink:
    def write(self, row):
        pass

    def flush(self):
        pass


async def test_rows_behind_a_slow_one_are_counted():
    async def chunks():
        yield [InputRow(row={"prompt": prompt}) for prompt in ("slow", "a", "known", "bad", "b")]

    model, account = Model(), Account()
    batch = BatchRun(model, RowOptions(), Sink(), account, concurrency=8)
    running = asyncio.ensure_future(batch.run(chunks()))
    async with asyncio.timeout(20):
        while batch.answered.rows < 4:
            await asyncio.sleep(0)
        live = batch.answered
        assert (account.rows, batch.in_flight) == (0, 1)
        assert (live.ok, live.failed, live.replayed, live.read_tokens, live.generated_tokens) == (3, 1, 1, 4, 2)
        model.slow.set()
        await running
    assert (account.rows, batch.answered.rows) == (5, 5)
