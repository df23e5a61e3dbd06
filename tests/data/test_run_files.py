"""The files of a run from start to end: refused before anything runs where one would be lost."""

import json

import pytest
from data_sim import sim_config

from trunnion.errors import ConfigError
from trunnion_ray.data import build_processor, driven


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dead_letters": "out.jsonl"}, "dead_letters and output are both out.jsonl"),
        ({"summary": "./out.jsonl"}, "summary and output are both"),
        ({"summary": "notes.txt"}, "summary notes.txt exists and is no account of a run"),
        ({"summary": "no/where.json"}, "its folder does not exist"),
        ({"dead_letters": "-"}, "dead_letters goes to a file"),
    ],
)
def test_files_that_would_be_lost_are_refused(tmp_path, monkeypatch, fields, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=said):
        build_processor(sim_config()).run(None, "out.jsonl", **fields)
    with pytest.raises(ConfigError, match="journal and output are both j"):
        build_processor(sim_config(journal="j")).run(None, "j/")


def test_an_output_that_another_run_made_meanwhile_is_left_as_it_is(tmp_path, monkeypatch):
    out = tmp_path / "out.jsonl"
    processor = build_processor(sim_config())
    sink = driven.open_output(str(out), None, None)

    def rows(_):
        yield {"id": 1, "error": None}
        out.write_text("another's")

    monkeypatch.setattr(driven, "rows_of", rows)
    with pytest.raises(ConfigError, match=r"made by another run meanwhile .* the rows are in .*out\.2\.jsonl"):
        driven._through_driver(None, [sink], processor, None)
    assert out.read_text() == "another's"
    assert json.loads((tmp_path / "out.2.jsonl").read_text())["id"] == 1
