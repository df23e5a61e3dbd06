"""Rows that embed, classify and score are kept, shared and asked again as those that generate."""

import asyncio
import contextlib
import dataclasses

import pytest

from trunnion import Pipeline, TextPrompt, Usage
from trunnion.errors import DeadlineExceeded, EngineDead, UnsupportedFeature
from trunnion.pooling import PoolingAnswer, PoolingRequest
from trunnion_batch.answering import Answerer, is_deterministic, request_keys
from trunnion_batch.arrow import output_schema
from trunnion_batch.journal import Journal
from trunnion_batch.journal.answers import is_readable, pack, unpack
from trunnion_batch.prefix_order import PrefixQueue
from trunnion_batch.recovery import Recovery
from trunnion_batch.supervisor import QUARANTINED, Supervisor

USAGE = Usage(prompt_tokens=3, completion_tokens=0, cached_tokens=1)
EMBED = PoolingRequest(task="embed", prompt=TextPrompt(text="a cat"))
CLASSIFY = PoolingRequest(task="classify", prompt=TextPrompt(text="a positive cat"))
SCORE = PoolingRequest(task="score", prompt=TextPrompt(text="a cat"), texts=("a cat", "a dog"))


@contextlib.asynccontextmanager
async def supervised(spec, recovery=None, opener=None):
    supervisor = Supervisor(spec, Recovery(**{"retry_backoff": 0.0, **(recovery or {})}), opener=opener)
    await supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()


@pytest.mark.parametrize(
    "answer",
    [
        PoolingAnswer(task="embed", usage=USAGE, vector=[0.1, -2.5]),
        PoolingAnswer(task="score", usage=USAGE, scores=[0.25, 1 / 3]),
        PoolingAnswer(task="classify", usage=USAGE, probabilities={"a": 0.1, "b": 0.9}),
    ],
)
def test_a_journal_gives_an_answer_back_as_it_was(answer, tmp_path):
    assert unpack(pack(answer)) == answer
    assert is_readable(pack(answer))
    assert not is_readable(b"\x94\x07rest")
    for found in (None, answer):
        with contextlib.closing(Journal(str(tmp_path / "journal"))) as journal:
            assert journal.take(b"k" * 16) == found
            if found is None:
                journal.add(b"k" * 16, answer)


def test_keys_tell_apart_what_is_asked(spec):
    keys = request_keys(spec())
    asked = [
        EMBED,
        CLASSIFY,
        SCORE,
        dataclasses.replace(EMBED, task="classify"),
        dataclasses.replace(EMBED, dimensions=4),
        dataclasses.replace(EMBED, adapter="loud"),
        dataclasses.replace(SCORE, texts=("a dog", "a cat")),
        dataclasses.replace(SCORE, prompt=TextPrompt(text="a dog")),
    ]
    assert len({keys.key(one) for one in asked}) == len(asked)
    assert keys.key(EMBED) == request_keys(spec()).key(dataclasses.replace(EMBED))
    assert all(is_deterministic(one) for one in asked)


async def test_every_task_is_answered_and_its_answer_shared(spec, tmp_path):
    async with supervised(spec()) as supervisor:
        with contextlib.closing(Journal(str(tmp_path / "cache"), share=True)) as cache:
            answerer = Answerer(supervisor, spec(), cache=cache, deduplicate=True, order=PrefixQueue(2))
            for request in (EMBED, CLASSIFY, SCORE):
                first, again = await asyncio.gather(answerer.answer(request), answerer.answer(request))
                assert first.completion == again.completion
                assert (first.replayed, again.replayed) == (False, True)
                later = await answerer.answer(request)
                assert (later.replayed, later.completion) == (True, first.completion)
            assert supervisor.answered == 3
            assert (await answerer.answer(SCORE)).completion.scores[0] == pytest.approx(1.0)
            assert max((await answerer.answer(CLASSIFY)).completion.probabilities.items(), key=lambda x: x[1])[0] == (
                "positive"
            )


async def test_an_engine_that_dies_on_a_row_is_replaced_and_the_row_set_apart(spec):
    settings = {"fault": "crash", "fault_marker": "kill"}

    async def opened(made):
        pipeline = Pipeline(made)
        await pipeline.start()
        return pipeline

    async with supervised(spec(**settings), opener=opened) as supervisor:
        killer = dataclasses.replace(EMBED, prompt=TextPrompt(text="kill"))
        others = [EMBED, CLASSIFY, SCORE] * 3
        outcomes = await asyncio.wait_for(
            asyncio.gather(*(supervisor.answer(one) for one in [killer, *others]), return_exceptions=True), 60
        )
        assert isinstance(outcomes[0], EngineDead)
        assert outcomes[0].code == QUARANTINED
        assert all(isinstance(one, PoolingAnswer) for one in outcomes[1:])
        assert supervisor.deaths >= 2


async def test_errors_that_pass_are_asked_again_and_a_row_has_its_time(spec):
    once = {"kind": "die", "requests": [0]}
    async with supervised(spec(faults=[once])) as supervisor:
        assert len((await supervisor.answer(SCORE)).scores) == 2
        assert len(await supervisor.score("a", ["b"])) == 1
        assert len(await supervisor.classify([TextPrompt(text="a")])) == 1
    async with supervised(spec(fault="hang"), {"row_timeout": 0.05}) as supervisor:
        with pytest.raises(DeadlineExceeded, match="row_timeout"):
            await supervisor.answer(CLASSIFY)


async def test_an_engine_that_cannot_refuses_the_row(spec):
    async with supervised(spec(unsupported=["scores/1"])) as supervisor:
        with pytest.raises(UnsupportedFeature, match="scores no texts"):
            await supervisor.answer(SCORE)


def test_parquet_has_the_types_of_a_task():
    import pyarrow as pa

    assert output_schema(None, "embed").field("embedding").type == pa.list_(pa.float32())
    schema = output_schema(pa.schema([("id", pa.int64()), ("scores", pa.string())]), "score")
    assert schema.names == ["id", "scores", "num_input_tokens", "usage", "error"]
    assert "generated_text" not in output_schema(None, "classify").names
