"""The plugin of CONTRIBUTING's guide works as it is printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from doc_pages import ROOT, blocks, environment, install

from trunnion_demo import model_path

pytestmark = pytest.mark.slow

GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Write an engine plugin")[1].split("\n## ")[0]
LIBRARY = '''
"""The library that the guide's plugin mounts: it repeats the prompt, warmly with words of it drawn at random."""

import asyncio
import pathlib
import random

__version__ = "1.0"


class Step:
    def __init__(self, ids, reason):
        self.ids, self.reason, self.last = ids, reason, reason is not None


class Foo:
    def __init__(self):
        self.jobs = set()

    def submit(self, ids, max_tokens, temperature):
        job = Job(self.jobs, ids, max_tokens or 4 * len(ids), temperature or 0)
        self.jobs.add(job)
        return job

    async def close(self, drain):
        for _ in range(round(drain / 0.01)):
            if not self.jobs:
                return
            await asyncio.sleep(0.01)
        for job in tuple(self.jobs):
            job.abort()


class Job:
    def __init__(self, jobs, ids, length, temperature):
        self.jobs, self.ids, self.length, self.temperature = jobs, ids, length, temperature
        self.aborted = False

    async def __aiter__(self):
        for place in range(self.length):
            await asyncio.sleep(0.002)
            if self.aborted:
                return
            drawn = random.random() < self.temperature / 2
            token = random.choice(self.ids) if drawn else self.ids[place % len(self.ids)]
            yield Step([token], "length" if place == self.length - 1 else None)
        self.jobs.discard(self)

    def abort(self):
        self.aborted = True
        self.jobs.discard(self)


async def load(model, device):
    if not (pathlib.Path(model) / "config.json").exists():
        raise FileNotFoundError(model)
    return Foo()
'''
SUITE = """
import pytest

from trunnion import engine_spec
from trunnion.testing import EngineSuite


class TestFoo(EngineSuite):
    plugin = "foo"

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        return engine_spec("foo", MODEL)
"""


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """Install what the guide prints, as an installer would; return the environment that finds it."""
    printed = blocks(GUIDE)
    (described,) = (block.text for block in printed if block.language == "toml")
    registers, engine = (block.text for block in printed if block.language == "python")
    (tmp_path / "trunnion_foo").mkdir()
    (tmp_path / "pyproject.toml").write_text(described, encoding="utf-8")
    (tmp_path / "trunnion_foo" / "__init__.py").write_text(registers, encoding="utf-8")
    (tmp_path / "trunnion_foo" / "engine.py").write_text(engine, encoding="utf-8")
    (tmp_path / "foo.py").write_text(LIBRARY, encoding="utf-8")
    install(tmp_path)
    return environment(tmp_path)


def test_the_guides_plugin_answers(installed: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "trunnion_cli.main", "chat", str(model_path()), "--engine", "foo"]
    command += ["--message", "hello there", "--sampling", "max_tokens=60", "--sampling", "temperature=0"]
    done = subprocess.run(command, env=installed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "hello there" in done.stdout
    refused = subprocess.run([*command, "--sampling", "top_k=3"], env=installed, capture_output=True, check=False)
    assert b"does not support top_k" in refused.stderr


def test_the_guides_plugin_keeps_the_contract(installed: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["trunnion.testing"]\n', encoding="utf-8")
    (tmp_path / "test_foo.py").write_text(SUITE.replace("MODEL", repr(str(model_path()))), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark", "--trunnion-surfaces=", "test_foo.py"]
    done = subprocess.run(command, env=installed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:]
