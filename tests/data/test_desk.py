"""The job's desk: what outlives a replica. Without Ray around it; the journal's own tests are with the journal."""

import pytest

from trunnion import Completion
from trunnion.completion import CompletionChoice
from trunnion.errors import ConfigError, EngineDead, TrunnionError
from trunnion.events import Usage
from trunnion_batch.account import Account
from trunnion_batch.journal.answers import pack, unpack
from trunnion_ray.data.block_count import BlockCount
from trunnion_ray.data.desk import Desk

A, B, C = (bytes([number]) * 16 for number in range(3))


def answer(text):
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    return pack(Completion(choices=[CompletionChoice(text=text)], usage=usage))


def count(rows=2, ok=2, **fields):
    errors = (("invalid_argument", rows - ok, "no"),) if rows > ok else ()
    values = {"replayed": 0, "prompt_tokens": 5, "cached_tokens": 1, "completion_tokens": 3, "errors": errors}
    return BlockCount(rows=rows, ok=ok, **{**values, **fields})


def begin(desk, call, *keys, replica="r", shared=True):
    deaths, answers = desk.begin(replica, call, keys, [shared] * len(keys))
    return deaths, [one and unpack(one).text for one in answers]


def test_blocks_are_counted_once_however_often_they_are_done():
    desk = Desk()
    desk.hello("r", "1")
    for _ in range(3):
        begin(desk, ("task", 1), A, B)
        desk.end("r", ("task", 1), count())
    begin(desk, ("task", 2), A)
    desk.end("r", ("task", 2), count(rows=3, ok=1), restarts=2)
    account = desk.account()
    assert (account["rows_in"], account["ok"], account["failed"]) == (5, 3, 2)
    assert (account["prompt_tokens"], account["completion_tokens"], account["cached_tokens"]) == (10, 6, 2)
    assert (account["engine_restarts"], account["blocks"]) == (2, 2)
    assert account["errors"] == [{"code": "invalid_argument", "count": 2, "example": {"message": "no"}}]


def test_how_far_a_job_has_come_is_known_before_its_rows_are_written():
    desk = Desk()
    assert desk.seen() == (Account(began=desk.seen().account.began), 0, 0, ())
    desk.hello("r", "1")
    desk.hello("other", "1")
    begin(desk, ("t", 1), A, None, B)
    begin(desk, ("t", 2), C, replica="other")
    assert desk.seen()[1:] == (3, 2, ())
    for _ in range(2):  # a block that is done again counts once
        desk.end("r", ("t", 1), count(rows=3, replayed=1, replayed_prompt_tokens=2, replayed_tokens=1, cost=0.5))
    account, in_flight, *_ = desk.seen()
    assert (account.rows, account.ok, account.new_rows, in_flight) == (3, 2, 2, 1)
    assert (account.read_tokens, account.generated_tokens, account.cost) == (3, 2, 0.5)


def test_rows_of_a_block_that_is_under_way_are_seen():
    desk = Desk()
    for replica in ("r", "other"):
        desk.hello(replica, "1")
    begin(desk, ("t", 1), A, B, C)
    begin(desk, ("t", 2), A, replica="other")
    desk.underway("r", {("t", 1): count(rows=2, ok=1), ("gone", 1): count()}, ["one", "two"])
    desk.underway("other", {}, ["three"])
    seen = desk.seen()
    assert (seen.account.ok, seen.account.failed, seen.account.completion_tokens, seen.in_flight) == (1, 1, 3, 2)
    assert seen.warned == ((1, "one"), (2, "two"), (3, "three"))
    assert desk.seen().account.rows == 2  # looking changes nothing
    assert desk.account()["rows_in"] == 0
    desk.end("r", ("t", 1), count(rows=3, ok=2))
    desk.underway("r", {("t", 1): count(rows=2, ok=1)}, [])  # overtaken on its way
    assert (desk.seen().account.rows, desk.seen().in_flight) == (3, 1)
    desk.underway("other", {("t", 2): count(rows=1, ok=1)}, [])
    assert desk.seen().account.rows == 4
    desk.hello("other", "2")  # its rows are done again
    assert desk.seen().account.rows == 3


def test_rows_of_a_replica_that_died_were_there_at_a_death():
    desk = Desk()
    desk.hello("r", "1")
    begin(desk, ("t", 1), A, None, B)
    begin(desk, ("t", 2), C)
    desk.end("r", ("t", 2), count())
    desk.hello("other", "1")
    assert begin(desk, ("u", 1), A, C, replica="other")[0] == [0, 0]
    desk.hello("r", "2")
    assert begin(desk, ("t", 1), A, None, B)[0] == [1, 0, 1]
    assert begin(desk, ("t", 3), C)[0] == [0]
    assert desk.account()["engine_restarts"] == 1


def test_a_replica_whose_process_ends_again_and_again_ends_the_job():
    desk = Desk(max_restarts=2)
    for life in "123":
        desk.hello("r", life)
    begin(desk, ("t", 1), A)
    desk.entering("r", A)
    desk.left("r", A)  # it came through: that is progress
    desk.hello("r", "4")
    desk.end("r", ("t", 1), count())  # so is a block
    for life in "56":
        desk.hello("r", life)
    desk.end("r", ("t", 2), count(replayed=2))  # what a journal has is none
    with pytest.raises(EngineDead, match="ended 3 times without") as caught:
        desk.hello("r", "7")
    assert caught.value.param == "max_engine_restarts"
    desk.hello("another", "1")


def test_of_rows_that_run_apart_only_those_in_the_engine_count():
    desk = Desk()
    desk.hello("r", "1")
    begin(desk, ("t", 1), A, B, C)
    desk.entering("r", A)
    desk.entering("r", B)
    desk.left("r", A)
    desk.hello("r", "2")
    assert begin(desk, ("t", 1), A, B, C)[0] == [0, 1, 0]


def test_a_replica_that_says_hello_again_in_the_same_life_did_not_die():
    desk = Desk()
    desk.hello("r", "1")
    begin(desk, ("t", 1), A)
    desk.hello("r", "1")
    assert begin(desk, ("t", 2), A)[0] == [0]


def test_answers_of_a_lost_block_are_taken_again_by_whoever_does_it(tmp_path):
    desk = Desk(journal=str(tmp_path / "journal"))
    desk.hello("r", "1")
    begin(desk, ("t", 1), A, B)
    desk.write(("t", 1), [(A, answer("a"), True)])
    desk.hello("r", "2")
    assert begin(desk, ("t", 1), A, B)[1] == ["a", None]
    desk.end("r", ("t", 1), count())
    assert begin(desk, ("t", 2), A)[1] == [None]  # an equal row has an answer of its own
    desk.close()


def test_a_journal_answers_the_next_job(tmp_path):
    first = Desk(journal=str(tmp_path / "journal"))
    first.write(("t", 1), [(A, answer("one"), True), (A, answer("two"), True)])
    first.close()
    second = Desk(journal=str(tmp_path / "journal"))
    assert begin(second, ("t", 1), A, B)[1] == ["one", None]
    assert begin(second, ("t", 1), A, B)[1] == ["one", None]  # the block is done again
    assert begin(second, ("t", 2), A, A)[1] == ["two", None]
    second.close()


def test_a_cache_answers_who_may_share(tmp_path):
    desk = Desk(cache=str(tmp_path / "cache"))
    desk.write(("t", 1), [(A, answer("a"), True), (B, answer("b"), False)])
    assert begin(desk, ("t", 2), A, A, B)[1] == ["a", "a", None]
    assert begin(desk, ("t", 3), A, shared=False)[1] == [None]
    desk.close()


def test_too_many_errors_end_the_job():
    desk = Desk(max_error_rate=0.5)
    desk.end("r", ("t", 1), count(rows=99, ok=0))
    desk.end("r", ("t", 2), count(rows=99, ok=99))
    with pytest.raises(TrunnionError, match=r"max_error_rate=0\.5") as caught:
        desk.end("r", ("t", 3), count(rows=10, ok=0))
    assert caught.value.code == "too_many_errors"


def test_a_journal_that_cannot_be_opened_is_told_to_who_says_hello(tmp_path):
    (tmp_path / "file").write_text("")
    desk = Desk(journal=str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="journal"):
        desk.hello("r", "1")
