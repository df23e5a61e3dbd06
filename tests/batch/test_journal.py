"""A journal gives back what was finished, each answer once, however its writer ended."""

import os
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunnion import Completion
from trunnion.completion import CompletionChoice, ToolCall
from trunnion.errors import ConfigError
from trunnion.events import TokenLogprob, Usage
from trunnion_batch.journal import Journal
from trunnion_batch.journal.answers import pack, unpack
from trunnion_batch.journal.probe import is_empty

KEYS = [bytes([number]) * 16 for number in range(5)]


def answer(text, **usage):
    return Completion(
        choices=[CompletionChoice(text=text, token_ids=[1, 2], finish_reason="stop")],
        usage=Usage(**{"prompt_tokens": 3, "completion_tokens": 2, **usage}),
    )


@pytest.fixture(params=["path", "file", "store"])
def uri(request, tmp_path):
    """Name a new journal; ``store`` is an object store, which knows no appending."""
    if request.param == "store":
        return f"memory://{tmp_path.name}/journal"
    return f"file://{tmp_path}/journal" if request.param == "file" else str(tmp_path / "a" / "journal")


def written(uri, *pairs, **options):
    journal = Journal(uri, **options)
    for key, completion in pairs:
        journal.add(key, completion)
    journal.close()
    return journal.stats


def test_what_was_written_comes_back_once(uri):
    assert written(uri, (KEYS[0], answer("a")), (KEYS[1], answer("b"))).recorded == 2
    journal = Journal(uri)
    assert journal.stats.found == 2
    assert journal.take(KEYS[0]) == answer("a")
    assert journal.take(KEYS[0]) is None
    assert journal.take(KEYS[2]) is None
    assert not journal.exhausted
    assert journal.take(KEYS[1]) == answer("b")
    assert journal.exhausted
    assert journal.stats.replayed == 2
    journal.close()
    again = Journal(uri)  # reading takes nothing away
    assert again.stats.found == 2
    again.close()


def test_a_place_is_empty_until_an_answer_is_there(uri):
    assert is_empty(uri)
    Journal(uri).close()  # one that was opened and stopped before the first answer
    assert is_empty(uri)
    written(uri, (KEYS[0], answer("one")))
    assert not is_empty(uri)


def test_equal_rows_stay_distinct(uri):
    written(uri, (KEYS[0], answer("first")), (KEYS[0], answer("second")))
    written(uri, (KEYS[0], answer("third")))
    journal = Journal(uri)
    assert [journal.take(KEYS[0]).text for _ in range(3)] == ["first", "second", "third"]
    assert journal.take(KEYS[0]) is None
    journal.close()


def test_a_cache_gives_an_answer_to_every_row_of_its_key(uri):
    written(uri, (KEYS[0], answer("a")), share=True)
    journal = Journal(uri, share=True)
    journal.add(KEYS[1], answer("b"))
    for _ in range(3):
        assert journal.take(KEYS[0]).text == "a"
        assert journal.take(KEYS[1]).text == "b"
    journal.close()


def test_a_journal_of_this_run_gives_its_own_answers_to_no_one(uri):
    journal = Journal(uri)
    journal.add(KEYS[0], answer("a"))
    assert journal.take(KEYS[0]) is None
    journal.close()


def test_flushing_brings_it_to_safety(uri):
    journal = Journal(uri)
    journal.add(KEYS[0], answer("a"))
    journal.flush()
    if journal._lock is not None:  # whoever was killed holds no lock
        os.close(journal._lock)
        journal._lock = None
    other = Journal(uri)
    assert other.take(KEYS[0]).text == "a"
    other.close()
    journal.close()


@pytest.mark.parametrize("cut", [1, 8, 23, 24, 30])
def test_a_piece_at_the_end_is_left_out(tmp_path, cut):
    written(str(tmp_path), (KEYS[0], answer("a")), (KEYS[1], answer("b")))
    (segment,) = tmp_path.glob("*.rows")
    segment.write_bytes(segment.read_bytes()[:-cut])
    written(str(tmp_path), (KEYS[2], answer("c")))
    journal = Journal(str(tmp_path))
    texts = [completion and completion.text for completion in map(journal.take, KEYS[:3])]
    assert texts == ["a", None, "c"]
    journal.close()


def test_a_record_that_was_damaged_is_left_out(tmp_path):
    written(str(tmp_path), (KEYS[0], answer("a")), (KEYS[1], answer("b")))
    (segment,) = tmp_path.glob("*.rows")
    data = bytearray(segment.read_bytes())
    data[-3] ^= 255
    segment.write_bytes(data)
    journal = Journal(str(tmp_path))
    assert (journal.take(KEYS[0]).text, journal.take(KEYS[1])) == ("a", None)
    journal.close()


def test_what_is_behind_damage_is_told(tmp_path, caplog):
    written(str(tmp_path), *((key, answer("text")) for key in KEYS))
    (segment,) = tmp_path.glob("*.rows")
    data = segment.read_bytes()
    Journal(str(tmp_path)).close()
    assert not caplog.records
    third = (len(data) - 6) * 2 // 5 + 6  # of five records that are as long as each other
    segment.write_bytes(data[: third + 40] + b"?" + data[third + 41 :])
    journal = Journal(str(tmp_path))
    assert journal.stats.found == 2
    journal.close()
    (said,) = (record.getMessage() for record in caplog.records)
    assert f"{segment}: {len(data) - third} of its {len(data)} bytes, from byte {third} on" in said


def test_a_file_that_is_no_segment_is_ignored(tmp_path):
    (tmp_path / "0.rows").write_text("something else, of another program")
    journal = Journal(str(tmp_path))
    assert journal.stats.found == 0
    journal.close()


def test_a_killed_writer_loses_nothing_that_it_wrote(tmp_path):
    program = """
        import os, signal, sys
        from trunnion_batch.journal import Journal
        from trunnion import Completion
        from trunnion.completion import CompletionChoice
        journal = Journal(sys.argv[1])
        for number in range(100):
            journal.add(number.to_bytes(16, "big"), Completion(choices=[CompletionChoice(text=str(number))]))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -9
    journal = Journal(str(tmp_path))
    assert [journal.take(number.to_bytes(16, "big")).text for number in range(100)] == list(map(str, range(100)))
    journal.close()


def test_two_jobs_cannot_share_one(tmp_path):
    journal = Journal(str(tmp_path))
    with pytest.raises(ConfigError, match="in use by another job"):
        Journal(str(tmp_path))
    journal.close()
    Journal(str(tmp_path)).close()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be opened"):
        Journal(str(tmp_path / "file" / "journal"))
    with pytest.raises(ConfigError, match="cannot be opened"):
        Journal("nosuchscheme://bucket/journal")


def test_memory_holds_no_answers(tmp_path):
    """The index of earlier answers lies on disk: what Python holds of it does not grow with them."""
    import tracemalloc

    def held(count, folder):
        journal = Journal(str(folder))
        for number in range(count):
            journal.add(number.to_bytes(16, "big"), answer("x" * 50))
        journal.close()
        tracemalloc.start()
        again = Journal(str(folder))
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert again.stats.found == count
        again.close()
        return size

    small, large = held(100, tmp_path / "small"), held(20_000, tmp_path / "large")
    assert large < small + 200_000


counts = st.integers(0, 9)
short = st.text(max_size=3)
alternative = st.builds(TokenLogprob, token_id=st.just(1), token=st.just("a"), logprob=st.just(-1.0))
logprobs = st.builds(
    TokenLogprob,
    token_id=st.integers(0, 10),
    token=short,
    logprob=st.floats(-20, 0),
    top=st.lists(alternative, max_size=2).map(tuple),
)
choices = st.fixed_dictionaries(
    {
        "text": st.text(max_size=20),
        "token_ids": st.lists(st.integers(0, 2**31), max_size=5),
        "reasoning": short,
        "tool_calls": st.lists(st.builds(ToolCall, id=short, name=short, arguments=short), max_size=2),
        "logprobs": st.none() | st.lists(logprobs, max_size=3),
        "finish_reason": st.sampled_from([None, "stop", "length", "tool_calls"]),
        "stop_reason": st.none() | short | counts,
    }
)
usages = st.builds(Usage, prompt_tokens=counts, completion_tokens=counts, cached_tokens=counts, reasoning_tokens=counts)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(choices, max_size=3), st.none() | usages, st.none() | st.lists(st.none() | logprobs, max_size=3).map(tuple)
)
def test_an_answer_comes_back_as_it_was(made, usage, prompt_logprobs):
    completion = Completion(
        choices=[CompletionChoice(index=index, **choice) for index, choice in enumerate(made)],
        usage=usage,
        prompt_logprobs=prompt_logprobs,
    )
    assert unpack(pack(completion)) == completion
