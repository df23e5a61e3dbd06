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
"""The library that the guide's plugin mounts: it repeats the prompt."""


class Step:
    def __init__(self, ids, reason):
        self.ids, self.reason, self.last = ids, reason, reason is not None


class Foo:
    def submit(self, ids, max_tokens):
        return Job(ids[:max_tokens])

    async def close(self):
        pass


class Job:
    def __init__(self, ids):
        self.ids = ids

    async def __aiter__(self):
        for token in self.ids[:-1]:
            yield Step([token], None)
        yield Step(self.ids[-1:], "length")

    def abort(self):
        pass


async def load(model, device):
    return Foo()
'''


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
    command += ["--message", "hello there", "--sampling", "max_tokens=500", "--sampling", "temperature=0.5"]
    done = subprocess.run(command, env=installed, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "hello there" in done.stdout
    refused = subprocess.run([*command, "--sampling", "top_k=3"], env=installed, capture_output=True, check=False)
    assert b"does not support top_k" in refused.stderr
