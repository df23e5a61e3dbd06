"""What the command shows while a model is fetched, and once the engine has started."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import source_lab
from source_lab import model_files, tarball

import trunnion as t
from trunnion_cli import starting
from trunnion_cli.starting import FetchBar, describe, size

pytestmark = pytest.mark.slow

FILES = model_files()


def environment(tmp_path):
    wanted = source_lab.environment(tmp_path / "cache")
    wanted["PYTHONPATH"] = os.pathsep.join([source_lab.install(tmp_path / "site"), wanted["PYTHONPATH"]])
    return wanted


def command(*arguments, tmp_path):
    wanted = environment(tmp_path)
    program = [sys.executable, "-m", "trunnion_cli.main", *map(str, arguments)]
    return subprocess.run(program, env=wanted, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_fetches_its_model_and_tells_the_stages(web, tmp_path):
    web.files["/model.tar.gz"] = tarball(FILES)
    (tmp_path / "in.jsonl").write_text('{"prompt": "which files?"}\n')
    done = command("run", "in.jsonl", "out.jsonl", f"{web.url}/model.tar.gz", "--engine", "files", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    row = json.loads((tmp_path / "out.jsonl").read_text())
    assert row["generated_text"] == "config.json model.safetensors tokenizer"
    assert re.search(r"^files started in \d+\.\d s", done.stderr, re.MULTILINE)


def test_a_model_that_is_not_there_ends_the_command(web, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"prompt": "?"}\n')
    done = command("run", "in.jsonl", "out.jsonl", f"{web.url}/none.zip", "--engine", "files", tmp_path=tmp_path)
    assert done.returncode == 2
    assert re.search(
        r"^error: no model at http://127.0.0.1:\d+/none.zip: the server answers 404", done.stderr, re.MULTILINE
    )


def test_ctrl_c_keeps_what_was_fetched(web, tmp_path):
    web.files["/model.tar"] = tarball(model_files(2_000_000), mode="w")
    web.pause = 0.05
    (tmp_path / "in.jsonl").write_text('{"prompt": "?"}\n')
    wanted = environment(tmp_path)
    program = [sys.executable, "-m", "trunnion_cli.main", "run", "in.jsonl", "out.jsonl", f"{web.url}/model.tar"]
    process = subprocess.Popen(
        [*program, "--engine", "files"], env=wanted, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while web.sent["/model.tar"] < 200_000:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in said
    assert next(tmp_path.glob("cache/models/*/*.partial/model.tar.part")).stat().st_size > 0


def test_sources_are_listed_and_described(tmp_path):
    listed = command("plugins", "list", "--json", tmp_path=tmp_path)
    rows = {row["name"]: row for row in json.loads(listed.stdout) if row["kind"] == "source"}
    assert {"hub", "web", "s3", "gs", "az", "memory", "sums"} <= set(rows)
    schema = command("plugins", "schema", "web", "--kind", "source", tmp_path=tmp_path)
    assert "read_timeout" in schema.stdout


@pytest.fixture
def report():
    def make(done, phase="fetching", total=3 << 20):
        return t.FetchProgress(reference="s3://b/m", phase=phase, done=done, total=total, file="model.safetensors")

    return make


def test_lines_come_at_intervals_where_nobody_watches(report, capsys, monkeypatch):
    bar = FetchBar()
    bar(report(0))
    bar(report(1 << 20))
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(starting, "_SECONDS", 0.0)
    bar(report(2 << 20))
    assert capsys.readouterr().err == "fetching s3://b/m: 2.0 MiB of 3.0 MiB, model.safetensors\n"


def test_waiting_for_another_process_is_told_once(report, capsys):
    bar = FetchBar()
    for _ in range(3):
        bar(report(0, "waiting"))
    assert capsys.readouterr().err == "another process on this node is fetching s3://b/m; waiting for it\n"


def test_a_bar_is_drawn_on_a_terminal(report, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    bar = FetchBar()
    bar(report(1 << 20))
    bar(report(2 << 20))
    bar.close()
    bar.close()
    assert "fetching model.safetensors" in terminal.getvalue()
    assert "MiB" in terminal.getvalue()


def test_sizes_for_people():
    assert [size(0), size(1536), size(5 << 30)] == ["0 B", "1.5 KiB", "5.0 GiB"]
    assert describe(t.FetchProgress(reference="r", done=7)) == "fetching r: 7 B"
