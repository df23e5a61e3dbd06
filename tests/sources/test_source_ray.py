"""A batch on Ray Data: its replicas share a node, and fetch the model once."""

import json
import os
import subprocess
import sys

import pytest
import source_lab
from source_lab import model_files, tarball

pytestmark = pytest.mark.ray


def test_two_replicas_fetch_once(web, tmp_path):
    web.files["/model.tar"] = tarball(model_files(800_000), mode="w")
    web.pause = 0.02  # long enough that both want it at the same time
    wanted = source_lab.environment(tmp_path / "cache", RAY_USAGE_STATS_ENABLED="0")
    wanted["PYTHONPATH"] = os.pathsep.join([source_lab.install(tmp_path / "site"), wanted["PYTHONPATH"]])
    program = [sys.executable, str(source_lab.HERE / "ray_program.py"), f"{web.url}/model.tar"]
    done = subprocess.run(program, env=wanted, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    texts = json.loads(done.stdout.splitlines()[-1])
    assert texts == ["config.json model.safetensors tokenizer"] * 32
    assert web.gets["/model.tar"] == 1
    assert len([1 for verb, _, _ in web.seen if verb == "GET"]) >= 3  # both replicas asked for it
