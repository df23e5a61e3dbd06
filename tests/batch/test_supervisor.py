"""Engines that die are replaced, their rows asked again, and a row that kills is set apart."""

import asyncio
import itertools

import pytest

from trunnion import Pipeline
from trunnion.errors import DeadlineExceeded, EngineDead, InvalidArgument, Overloaded, Transient
from trunnion_batch.recovery import Recovery
from trunnion_batch.supervisor import QUARANTINED, EngineGone, Supervisor


class Lab:
    """Open pipelines on sim engines whose settings change from one to the next, and count what they are asked."""

    def __init__(self, spec, *settings):
        self.spec = spec
        self.settings = itertools.chain(settings, itertools.repeat(settings[-1] if settings else {}))
        self.pipelines = []
        self.asked = []

    async def open(self, _):
        settings = next(self.settings)
        if isinstance(settings, Exception):
            raise settings
        pipeline = Pipeline(self.spec(**settings))
        await pipeline.start()
        generate = pipeline.generate

        def counted(item):
            self.asked.append((len(self.pipelines), getattr(item, "request", item).prompt.text))
            return generate(item)

        pipeline.generate = counted
        self.pipelines.append(pipeline)
        return pipeline


@pytest.fixture
async def supervised(spec):
    made = []

    async def start(*settings, **recovery):
        lab = Lab(spec, *settings)
        recovery = {"retry_backoff": 0.0, **recovery}
        supervisor = Supervisor(lab.spec(), Recovery(**recovery), opener=lab.open)
        await supervisor.start()
        made.append(supervisor)
        return supervisor, lab

    yield start
    for supervisor in made:
        await supervisor.stop()


async def everything(supervisor, requests):
    return await asyncio.wait_for(
        asyncio.gather(*(supervisor.complete(request) for request in requests), return_exceptions=True), 60
    )


CRASH = {"fault": "crash", "fault_marker": "poison", "tpot": 0.001}


async def test_rows_of_a_dead_engine_are_answered_by_the_next(supervised, ask):
    supervisor, lab = await supervised({"faults": [{"kind": "crash_node", "at": 0.05}], "tpot": 0.05}, {})
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(40)])
    expected = [answer.text for answer in answers]
    assert all(expected)
    assert (supervisor.deaths, supervisor.answered, len(lab.pipelines)) == (1, 40, 2)
    again, _ = await supervised({})
    assert [answer.text for answer in await everything(again, [ask(f"row {i}") for i in range(40)])] == expected


async def test_a_row_that_kills_is_set_apart_and_costs_no_other(supervised, ask):
    supervisor, lab = await supervised(CRASH)
    rows = [ask(f"row {i}" if i != 17 else "poison") for i in range(60)]
    answers = await everything(supervisor, rows)
    bad = [index for index, answer in enumerate(answers) if isinstance(answer, Exception)]
    assert bad == [17]
    assert (answers[17].code, answers[17].retryable) == (QUARANTINED, False)
    assert supervisor.deaths == 3
    asked = [text for _, text in lab.asked]
    assert asked.count("poison") == 3
    assert max(asked.count(f"row {i}") for i in range(60)) <= 3


async def test_a_row_that_was_there_twice_by_accident_is_answered_alone(supervised, ask):
    dies = {"faults": [{"kind": "crash_node", "at": 0.05}], "tpot": 0.1}
    supervisor, lab = await supervised(dies, dies, {"tpot": 0.001})
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(4)])
    assert all(answer.text for answer in answers)
    assert (supervisor.deaths, len(lab.pipelines)) == (2, 3)


async def test_suspects_run_in_small_groups_and_without_others(supervised, ask):
    supervisor, lab = await supervised({"faults": [{"kind": "crash_node", "at": 0.5}], "tpot": 1.0}, {"tpot": 0.002})
    rows = [asyncio.ensure_future(supervisor.complete(ask(f"old {i}"))) for i in range(100)]
    while len(lab.pipelines) < 2:
        await asyncio.sleep(0.005)
    rows += [asyncio.ensure_future(supervisor.complete(ask(f"new {i}"))) for i in range(20)]
    most = 0
    while not all(row.done() for row in rows[:100]):
        await asyncio.sleep(0.001)
        most = max(most, supervisor.in_flight)
        if any(not row.done() for row in rows[:90]):
            assert not any("new" in text for engine, text in lab.asked if engine == 2)
    assert 1 <= most <= 20
    await asyncio.gather(*rows)


async def test_a_job_ends_when_no_engine_lives(supervised, ask):
    supervisor, lab = await supervised(
        {"faults": [{"kind": "crash_node", "at": 0.02}], "tpot": 0.2}, max_engine_restarts=1
    )
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(5)])
    assert {type(answer) for answer in answers} == {EngineGone}
    assert "2 times without an answered row" in answers[0].error.message
    assert answers[0].error.param == "max_engine_restarts"
    assert len(lab.pipelines) == 2
    with pytest.raises(EngineGone):
        await supervisor.complete(ask("late"))


async def test_rows_that_are_set_apart_are_no_progress(supervised, ask):
    """Where every row kills, the engine is what is broken."""
    supervisor, lab = await supervised({"fault": "crash"}, max_engine_restarts=4)
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(30)])
    kinds = [type(answer) for answer in answers]
    assert kinds.count(EngineDead) + kinds.count(EngineGone) == 30
    assert 1 <= kinds.count(EngineDead) <= 3  # set apart: from the third death on
    assert (supervisor.deaths, len(lab.pipelines)) == (5, 5)
    assert "5 times without an answered row" in str(next(one for one in answers if isinstance(one, EngineGone)))


async def test_a_job_goes_on_as_long_as_rows_are_answered_in_between(supervised, ask):
    supervisor, _ = await supervised(CRASH, max_engine_restarts=3)
    codes = []
    for index in range(12):  # one at a time: each third row kills three engines
        (answer,) = await everything(supervisor, [ask("poison" if index % 3 == 0 else f"row {index}")])
        codes.append(getattr(answer, "code", None))
    assert codes == [QUARANTINED, None, None] * 4
    assert supervisor.deaths == 12


def refusing(lab, *errors):
    """Have each attempt fail with the next of the errors, and be answered where that is None."""
    pipeline = lab.pipelines[0]
    generate, given = pipeline.generate, iter(errors)

    async def refused(item):
        error = next(given)
        await asyncio.sleep(0)
        if error is not None:
            raise error
        async for event in generate(item):
            yield event

    pipeline.generate = refused


def gone(text="nobody answers"):
    return Transient(text)


@pytest.mark.parametrize(("limit", "rows", "failed"), [(30, 100, 29), (5, 100, 4), (100, 40, 39), (100, 12, 11)])
async def test_rows_that_only_fail_because_nobody_answers_end_the_job(supervised, ask, limit, rows, failed):
    supervisor, lab = await supervised(row_retries=0, max_unreachable_rows=limit)
    refusing(lab, *(gone() for _ in range(100)))
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(rows)])
    kinds = [type(answer) for answer in answers]
    assert (kinds.count(Transient), kinds.count(EngineGone)) == (failed, rows - failed)
    error = next(one for one in answers if isinstance(one, EngineGone)).error
    assert (type(error), error.code, error.param) == (EngineDead, "engine_unreachable", "max_unreachable_rows")
    assert f"{failed + 1} rows failed one after the other" in str(error)
    with pytest.raises(EngineGone):
        await supervisor.complete(ask("late"))


async def test_rows_that_wait_are_told_at_once_that_nobody_answers(supervised, ask):
    """Their next attempt is an hour away."""
    supervisor, lab = await supervised(row_retries=1, retry_backoff=0.0, max_unreachable_rows=10)
    later = Transient("come back", retry_after=3600.0)
    refusing(lab, *(later for _ in range(5)), *(gone() for _ in range(40)))
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(25)])
    assert [type(answer) for answer in answers[:5]] == [EngineGone] * 5


async def test_few_rows_do_not_end_a_job(supervised, ask):
    supervisor, lab = await supervised(row_retries=0)
    refusing(lab, *(gone() for _ in range(9)))
    for index in range(9):
        (answer,) = await everything(supervisor, [ask(f"row {index}")])
        assert type(answer) is Transient


@pytest.mark.parametrize(
    "between",
    [
        None,
        Overloaded("too many"),
        InvalidArgument("no such field", details={"status": 400}),
    ],
)
async def test_an_answer_in_between_shows_that_the_engine_is_there(supervised, ask, between):
    supervisor, lab = await supervised(row_retries=0, max_unreachable_rows=5)
    refusing(lab, *([gone()] * 4 + [between]) * 4)
    for index in range(20):
        (answer,) = await everything(supervisor, [ask(f"row {index}")])
        assert type(answer) is not EngineGone


@pytest.mark.parametrize(
    "error",
    [
        InvalidArgument("no such field", details={"status": 400}),
        InvalidArgument("wrong"),
        Overloaded("too many"),
        DeadlineExceeded("too long"),
        Transient("an image cannot be fetched", param="media.image"),
        Transient("for good", retryable=False),
    ],
)
async def test_rows_that_fail_for_reasons_of_their_own_do_not_end_a_job(supervised, ask, error):
    supervisor, lab = await supervised(row_retries=0, max_unreachable_rows=1)
    refusing(lab, *[error] * 30)
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(30)])
    assert {type(answer) for answer in answers} == {type(error)}


async def test_it_may_be_switched_off(supervised, ask):
    supervisor, lab = await supervised(row_retries=0, max_unreachable_rows=None)
    refusing(lab, *[gone()] * 300)
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(300)])
    assert {type(answer) for answer in answers} == {Transient}


async def outage(supervised, ask, attempts, **recovery):
    """Answer one row, then have ten fail as often as ``attempts`` says in all before they are answered."""
    recovery = {"row_retries": 2, "retry_backoff": 0.001, "max_unreachable_rows": None, **recovery}
    supervisor, lab = await supervised(**recovery)
    refusing(lab, None, *[gone()] * attempts, *[None] * 200)
    answer = await supervisor.complete(ask("first"))
    return [answer, *await everything(supervisor, [ask(f"row {i}") for i in range(10)])]


@pytest.mark.parametrize(("recovery", "failed"), [({}, 0), ({"outage_timeout": 0}, 10), ({"row_retries": 0}, 10)])
async def test_rows_wait_for_an_engine_that_answered_before(supervised, ask, caplog, recovery, failed):
    answers = await outage(supervised, ask, 100, **recovery)
    assert [type(answer) for answer in answers].count(Transient) == failed
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "rows wait for it, 300 s at most (outage_timeout)" in text]) == (not failed)
    assert len([text for text in told if "the engine answers again" in text]) == (not failed)


async def test_rows_do_not_wait_for_ever(supervised, ask):
    answers = await outage(supervised, ask, 20_000, outage_timeout=0.2)
    assert [type(answer) for answer in answers].count(Transient) == 10


async def test_rows_do_not_wait_for_an_engine_that_never_answered(supervised, ask):
    supervisor, lab = await supervised(row_retries=2, retry_backoff=0.0, max_unreachable_rows=None)
    refusing(lab, *[gone()] * 30)
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(10)])
    assert {type(answer) for answer in answers} == {Transient}


@pytest.mark.parametrize("connected", [True, False])
async def test_a_row_waits_while_others_are_answered_only_where_it_was_not_taken(supervised, ask, connected):
    """An endpoint that is being stopped takes no connections, and answers what it has begun."""
    supervisor, lab = await supervised(row_retries=2, retry_backoff=0.1)
    pipeline = lab.pipelines[0]
    generate, asked = pipeline.generate, []

    async def refused(item):
        prompt = str(item.prompt)
        asked.append("lost" in prompt)
        if "lost" in prompt and asked.count(True) < 6:
            raise gone() if connected else Transient("nobody answers", details={"connected": False})
        async for event in generate(item):
            yield event

    pipeline.generate = refused
    lost = asyncio.ensure_future(everything(supervisor, [ask("lost")]))
    while not lost.done():
        await supervisor.complete(ask("row"))
        await asyncio.sleep(0.01)
    assert [type(answer) is Transient for answer in lost.result()] == [connected]
    assert asked.count(True) == (3 if connected else 6)


async def test_engines_that_die_in_a_row_are_not_told_one_by_one(supervised, ask, caplog):
    supervisor, _ = await supervised({"fault": "crash"}, max_engine_restarts=4)
    await everything(supervisor, [ask(f"row {i}") for i in range(30)])
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert supervisor.deaths == 5
    assert len([text for text in warned if "died" in text]) == 1
    assert len([text for text in warned if "a new engine runs" in text]) == 1


async def test_a_start_that_fails_is_tried_again(supervised, ask):
    supervisor, lab = await supervised(
        {"faults": [{"kind": "crash_node", "at": 0.02}], "tpot": 0.2}, Transient("not yet"), {}
    )
    (answer,) = await everything(supervisor, [ask("row")])
    assert answer.text
    assert len(lab.pipelines) == 2


async def test_a_stalled_engine_counts_as_dead(supervised, ask):
    hung = {"fault": "hang", "fault_marker": "row", "tpot": 0.001}
    supervisor, _ = await supervised(hung, {}, stall_timeout=0.3)
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(5)])
    assert all(answer.text for answer in answers)
    assert supervisor.deaths == 1


async def test_an_engine_that_is_slow_is_not_stalled(supervised, ask):
    supervisor, _ = await supervised({"tpot": 0.1, "max_num_seqs": 1}, stall_timeout=0.8)
    answers = await everything(supervisor, [ask(f"row {i}") for i in range(6)])
    assert all(answer.text for answer in answers)
    assert supervisor.deaths == 0


async def test_an_error_that_may_pass_is_asked_again(supervised, ask):
    refuses = {"faults": [{"kind": "refuse", "requests": [0, 1, 2]}]}
    supervisor, lab = await supervised(refuses, row_retries=3)
    assert (await supervisor.complete(ask("row"))).text
    assert len(lab.asked) == 4
    supervisor, lab = await supervised(refuses, row_retries=2)
    with pytest.raises(Overloaded):
        await supervisor.complete(ask("row"))
    assert len(lab.asked) == 3


async def test_what_a_row_is_refused_for_is_not_asked_again(supervised, ask):
    supervisor, lab = await supervised({"max_model_len": 16})
    with pytest.raises(InvalidArgument):
        await supervisor.complete(ask("row " * 100))
    assert len(lab.asked) == 1


async def test_a_row_has_its_time(supervised, ask):
    supervisor, _ = await supervised({"fault": "hang", "fault_marker": "slow"}, row_timeout=0.2)
    answers = await everything(supervisor, [ask("slow"), ask("other")])
    assert isinstance(answers[0], DeadlineExceeded)
    assert answers[1].text
    assert supervisor.deaths == 0


async def test_a_wait_longer_than_the_row_has_is_not_begun(supervised, ask):
    supervisor, _ = await supervised({"fault": "refuse"}, row_timeout=5.0, retry_backoff=60.0)
    (answer,) = await asyncio.wait_for(everything(supervisor, [ask("row")]), 4)
    assert isinstance(answer, Overloaded)


async def test_a_row_that_is_given_up_frees_its_place(supervised, ask):
    supervisor, _ = await supervised({"fault": "hang", "fault_marker": "slow"})
    task = asyncio.ensure_future(supervisor.complete(ask("slow")))
    await asyncio.sleep(0.05)
    assert supervisor.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert supervisor.in_flight == 0


async def test_prepared_rows_are_prepared_anew_for_the_next_engine(supervised, ask):
    """A stop string is cut by a stage whose state the dead engine's answer has used."""
    supervisor, lab = await supervised({"faults": [{"kind": "crash_node", "at": 0.05}], "tpot": 0.05}, {})
    request = ask("row", stop=("zzz",))
    (prepared,) = supervisor.pipeline.prepare([request])
    assert (await supervisor.complete(request, prepared)).text
    assert [engine for engine, _ in lab.asked] == [1, 2]


async def test_stopping_ends_what_waits(supervised, ask):
    supervisor, _ = await supervised({"faults": [{"kind": "crash_node", "at": 0.02}], "tpot": 0.2}, EngineDead("no"))
    task = asyncio.ensure_future(supervisor.complete(ask("row")))
    await asyncio.sleep(0.1)
    await supervisor.stop()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
