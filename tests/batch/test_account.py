"""The account: every row counted, errors by kind with an example, tokens and what they cost."""

import time

import pytest

from trunnion.errors import InvalidArgument, Overloaded, TrunnionError
from trunnion.rows import error_columns
from trunnion_batch.account import Account


def ok(prompt=10, completion=5, cached=0):
    return {
        "num_input_tokens": prompt,
        "num_generated_tokens": completion,
        "usage": {"cached_tokens": cached},
        "error": None,
    }


def test_rows_tokens_and_errors_are_counted():
    account = Account()
    account.add(ok())
    account.add(error_columns(Overloaded("full")))
    account.add(ok(cached=4), replayed=True)
    account.add(error_columns(InvalidArgument("no prompt")))
    account.add(error_columns(InvalidArgument("x" * 2000)))
    told = account.summary(5, engine="sim")
    assert (told["rows_in"], told["ok"], told["failed"], told["replayed"], told["partial"]) == (5, 2, 3, 1, False)
    assert (told["prompt_tokens"], told["cached_tokens"], told["completion_tokens"]) == (20, 4, 10)
    assert told["errors"] == [
        {"code": "invalid_argument", "count": 2, "example": {"row": 4, "message": "no prompt"}},
        {"code": "overloaded", "count": 1, "example": {"row": 2, "message": "full"}},
    ]
    assert told["engine"] == "sim"
    assert (told["replayed_tokens"], account.generated_tokens) == (5, 5)
    assert (told["replayed_prompt_tokens"], account.read_tokens, told["replayed_cached_tokens"]) == (10, 10, 4)
    assert "cost" not in told
    account.balance(5)
    with pytest.raises(AssertionError, match="6 rows in, but 2 ok and 3 failed"):
        account.balance(6)


def test_what_replicas_counted_is_taken_over():
    counted = Account(prices={"input": 1.0, "cached_input": 1.0, "output": 1.0})
    counted.add(ok())
    counted.add(ok(), replayed=True)
    account = Account()
    account.add({"answer": "a row whose columns were dropped", "error": None})
    account.take(counted.summary(2))
    assert (account.completion_tokens, account.generated_tokens, account.replayed) == (10, 5, 1)
    assert account.cost == counted.cost
    assert (account.read_tokens, account.new_rows) == (10, 0)
    account.take(Account().summary(0))
    assert account.cost is None


def test_rates_are_of_what_the_run_did_itself():
    account = Account(began=time.monotonic() - 100)
    for number in range(100):
        account.add(ok(), replayed=number >= 25)
    told = account.summary(100)
    assert told["rows_per_second"] == pytest.approx(0.25, rel=0.5)
    assert told["tokens_per_second"] == pytest.approx(5 * 0.25, rel=0.5)


def test_a_row_whose_number_is_not_known_is_not_named():
    account = Account()
    account.add(error_columns(Overloaded("full")), number=0)
    account.add(error_columns(InvalidArgument("no")), number=7)
    examples = {kind["code"]: kind["example"] for kind in account.summary(2)["errors"]}
    assert examples == {"overloaded": {"message": "full"}, "invalid_argument": {"row": 7, "message": "no"}}


def test_a_cost_is_told_without_the_noise_of_its_sum():
    account = Account(prices={"input": 1.0, "cached_input": 1.0, "output": 1.0})
    for _ in range(3):
        account.add(ok(prompt=90_000, completion=10_000))
    assert account.cost != 0.3  # what a sum of floats comes to
    assert account.summary(3)["cost"] == 0.3


def test_tokens_are_paid_for_once():
    account = Account(prices={"input": 1.0, "cached_input": 0.1, "output": 10.0})
    account.add(ok(prompt=1_000_000, cached=500_000, completion=100_000))
    assert account.cost == pytest.approx(0.5 + 0.05 + 1.0)
    account.add(ok(prompt=1_000_000, completion=100_000), replayed=True)
    assert account.cost == pytest.approx(1.55)
    assert account.summary(2)["cost"] == pytest.approx(1.55)


@pytest.mark.parametrize("error", ['{"code": "a", "message": "b"}', {"code": "a", "message": "b"}])
def test_errors_of_mirrored_configurations_are_read_too(error):
    account = Account()
    account.add({"error": error})
    assert [(code, kind.message) for code, kind in account.kinds()] == [("a", "b")]
    account.add({"error": "plain text"})
    assert account.errors["error"].message == "plain text"


def test_a_share_of_errors_means_nothing_before_there_are_enough_rows():
    account = Account(max_error_rate=0.0)
    for _ in range(99):
        account.add({"error": {"code": "a"}})
    with pytest.raises(TrunnionError, match="100 of 100 rows failed") as caught:
        account.add({"error": {"code": "a"}})
    assert (caught.value.code, caught.value.param) == ("too_many_errors", "max_error_rate")
