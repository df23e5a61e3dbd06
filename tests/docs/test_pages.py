"""What the pages print is what happens: their files are written, their commands run, from top to bottom."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import pytest
from doc_pages import ROOT, blocks, commands, environment, follow

DOCS = ROOT / "docs"
RUN = [
    pytest.param("write-a-plugin.md", marks=pytest.mark.slow),
    pytest.param("http.md", marks=pytest.mark.slow),
    pytest.param("index.md", marks=pytest.mark.engine),
    pytest.param("production.md", marks=[pytest.mark.slow, pytest.mark.ray]),
    pytest.param("batch.md", marks=[pytest.mark.long, pytest.mark.engine, pytest.mark.ray]),
    pytest.param("serving.md", marks=[pytest.mark.long, pytest.mark.engine, pytest.mark.ray]),
]
PAGES = sorted(path.name for path in DOCS.glob("*.md"))


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.parametrize("page", RUN)
def test_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    follow((DOCS / page).read_text(encoding="utf-8"), tmp_path, environment(tmp_path), port=free_port())


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_is_python(page: str) -> None:
    for block in blocks((DOCS / page).read_text(encoding="utf-8")):
        if block.language == "python":
            compile(block.text, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


def test_pages_with_commands_are_run() -> None:
    run = {str(case.values[0]) for case in RUN}
    for page in PAGES:
        found = blocks((DOCS / page).read_text(encoding="utf-8"))
        assert page in run or not any(commands(block) for block in found if block.language == "console"), page
