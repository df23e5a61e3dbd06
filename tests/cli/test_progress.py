"""What a batch tells at its end: a line, or a table where somebody watches."""

import io
import time

import pytest

from trunnion_batch.account import Account
from trunnion_cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def account():
    made = Account(prices={"input": 1.0, "cached_input": 1.0, "output": 1.0})
    for _ in range(3):
        made.add({"num_input_tokens": 5, "num_generated_tokens": 7, "usage": {"cached_tokens": 2}})
    made.add({"num_input_tokens": 5, "num_generated_tokens": 7}, replayed=True)
    made.add({"error": {"code": "context_length_exceeded", "message": "[too] long\nby far"}})
    return made


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_the_account_is_told(account, monkeypatch, stream):
    written = stream()
    monkeypatch.setattr("sys.stderr", written)
    Progress(5, account).tell(5, partial=False)
    said = " ".join(written.getvalue().split())
    if stream is Terminal:
        for line in ("5 rows in", "4 ok, 1 of them known before", "1 failed", "15 tokens in, 6 of them cached"):
            assert line in said
        assert "21 tokens out" in said  # those that were known are not generated
    else:
        assert "5 rows in = 4 ok (1 replayed) + 1 failed; 21 tokens in" in said
        assert written.getvalue().count("\n") == 2
    assert "1 context_length_exceeded, such as row 5: [too] long by far" in said
    assert "0.0000" in said  # 36 tokens


def test_a_row_whose_number_nobody_knows_is_not_named(monkeypatch):
    account = Account()
    account.add({"error": {"code": "engine_dead", "message": "gone"}}, number=0)
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stderr", stream)
        Progress(1, account).tell(1, partial=False)
        assert "1 engine_dead: gone" in " ".join(stream.getvalue().split())


def test_rates_in_the_end_are_of_what_the_run_did_itself(monkeypatch):
    account = Account(began=time.monotonic() - 1e6)
    for _ in range(3):
        account.add({"num_input_tokens": 10**9, "num_generated_tokens": 10**9}, replayed=True)
    for stream, rate in ((io.StringIO(), "0 tokens in 1000000."), (Terminal(), "0 tokens out, 0 a second")):
        monkeypatch.setattr("sys.stderr", stream)
        Progress(3, account).tell(3, partial=False)
        assert rate in " ".join(stream.getvalue().split())
        assert "1000000000" not in stream.getvalue()


def test_an_account_that_does_not_balance_is_not_told(account):
    with pytest.raises(AssertionError, match="6 rows in"):
        Progress(5, account).tell(6, partial=False)
