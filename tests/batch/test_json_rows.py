"""Rows of JSON lines: what is no JSON is told, and what JSON cannot hold is not written."""

import json

import pytest

from trunnion.errors import ConfigError
from trunnion_batch.batch_files.files import open_input
from trunnion_batch.row_input import RowInput, parse_line
from trunnion_batch.row_output import JsonlOutput


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_line_with_a_number_that_json_lacks_is_an_error_that_keeps_the_line(value):
    line = f'{{"prompt": "a", "score": {value}}}'
    read = parse_line(line.encode(), 4)
    assert f"line 4 is not valid JSON: {value} is no value of JSON" in read.error.message
    assert read.row == {"input_line": line}


def test_a_byte_order_mark_is_no_part_of_the_row():
    assert parse_line(b'\xef\xbb\xbf{"prompt": "\xc3\xa4"}', 1).row == {"prompt": "ä"}


def test_bytes_that_are_no_utf_8_are_told():
    assert "line 1 is not valid JSON" in parse_line(b'{"prompt": "\xe4"}', 1).error.message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_file_in_utf_16_is_refused_before_anything_starts(tmp_path, encoding):
    path = tmp_path / "in.jsonl"
    path.write_bytes('{"prompt": "a"}\n'.encode(encoding))
    with pytest.raises(ConfigError, match=r"not UTF-8.*iconv"):
        RowInput(str(path))
    with pytest.raises(ConfigError, match=r"--input .*not UTF-8.*iconv") as caught:
        open_input(str(path))
    assert caught.value.param == "--input"


def test_an_empty_file_and_a_short_one_are_read(tmp_path):
    path = tmp_path / "in.jsonl"
    for text in ("", "{}"):
        path.write_text(text)
        assert [row.row for chunk in RowInput(str(path)).read() for row in chunk] == [{}] * bool(text)


def test_numbers_that_json_lacks_are_written_as_null(tmp_path):
    path = tmp_path / "out.jsonl"
    output = JsonlOutput(path)
    output.write({"a": float("nan"), "b": [1.5, float("inf"), {"c": (float("-inf"),)}], "d": "ä", "e": b"x"})
    output.write({"a": 1.0, "text": "\ud800"})
    output.commit()

    def refuse(name):
        raise AssertionError(name)

    rows = [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]
    assert rows == [{"a": None, "b": [1.5, None, {"c": [None]}], "d": "ä", "e": "eA=="}, {"a": 1.0, "text": "\ud800"}]
