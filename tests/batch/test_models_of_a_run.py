"""Rows of several models in one run: each is answered, and paid for, by its own."""

import pytest

from trunnion import ChoiceDelta, Completion, GenerateEvent, Usage
from trunnion.errors import AdapterNotFound, InvalidArgument
from trunnion.rows import RowOptions
from trunnion_batch.account import Account
from trunnion_batch.answering import Answered
from trunnion_batch.routes import Routes
from trunnion_batch.row_input import InputRow, RowInput
from trunnion_batch.run import Asked, BatchRun


class Model:
    """Answer every request with a million tokens, at a price or at none."""

    def __init__(self, prices):
        self.prices = prices
        self.adapters = []

    async def answer(self, request):
        self.adapters.append(request.adapter)
        completion = Completion()
        usage = Usage(prompt_tokens=1_000_000, completion_tokens=0)
        choice = ChoiceDelta(text="x", finish_reason="stop")
        completion.add(GenerateEvent(choices=(choice,), usage=usage))
        return Answered(completion)


class Sink:
    def write(self, row):
        assert row["error"] is None

    def flush(self):
        pass


async def test_each_row_costs_what_its_model_costs():
    async def chunks():
        yield [InputRow(row={"prompt": "a", "model": name}) for name in ("judge", None, "judge:strict", "free", "mine")]

    prices = {"input": 2.0, "cached_input": 2.0, "output": 2.0}
    own, judge, free = Model(prices), Model({**prices, "input": 10.0}), Model(None)
    further = {"judge": Asked(judge, RowOptions()), "free": Asked(free, RowOptions())}
    account = Account()
    await BatchRun(own, RowOptions(), Sink(), account, concurrency=2, further=further).run(chunks())
    assert (own.adapters, judge.adapters, free.adapters) == ([None, "mine"], [None, "strict"], [None])
    assert account.ok == 5
    assert account.cost == 2 * 2.0 + 2 * 10.0


@pytest.mark.parametrize(
    ("names", "base", "said"),
    [
        (
            ("judge",),
            ("small",),
            r"no adapter x; a row may name a model of this job \(small, judge\), or an adapter as",
        ),
        ((), ("small",), r"no adapter x; a row may name a model of this job \(small\), or an adapter of it"),
        ((), (), "no adapter x$"),
    ],
)
def test_an_adapter_that_is_not_there_is_told_with_the_models_that_are(names, base, said):
    error = Routes(names).told(AdapterNotFound("no adapter x", param="model"), base)
    with pytest.raises(AdapterNotFound, match=said) as caught:
        raise error
    assert caught.value.param == "model"
    other = InvalidArgument("no")
    assert Routes(("judge",)).told(other) is other


async def test_an_error_has_the_number_of_its_line(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('\n{"prompt": "a"}\n\n \n{"prompt": null}\n{"prompt": "b"}\n\n{broken')
    rows = RowInput(str(path))
    assert list(rows.numbers()) == [2, 5, 6, 8]

    class Any:
        write = flush = lambda *_: None

    account = Account()
    await BatchRun(Model(None), RowOptions(), Any(), account, concurrency=1).run(rows.chunks())
    assert [(kind.row, kind.count) for kind in account.errors.values()] == [(5, 2)]
