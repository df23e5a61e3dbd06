"""Hold the README true: its table, its commands, its programs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import trunnion
from trunnion_cli.capability_table import capability_table

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_table_of_engines_is_what_the_plugins_declare() -> None:
    registry = trunnion.get_registry()
    table = README.split("<!-- engines -->\n")[1].split("<!-- /engines -->")[0].strip()
    assert table == capability_table(registry.engines(), registry.stages()).strip()


@pytest.mark.parametrize("target", re.findall(r"^make (\S+)", README, flags=re.MULTILINE))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)]+)\)", README))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def statements(source: str) -> list[str]:
    """Return top-level statements without imports, guards and names that differ on purpose."""
    kept = []
    for node in ast.parse(source).body:
        body = node.body if isinstance(node, ast.If) else [node]
        kept += [ast.unparse(n) for n in body if not isinstance(n, (ast.Import, ast.ImportFrom, ast.Expr, ast.If))]
    return kept


@pytest.mark.parametrize(("index", "example"), [(1, "batch.py"), (2, "serving.py"), (3, "endpoint.py")])
def test_the_programs_are_the_examples(index: int, example: str) -> None:
    source = (ROOT / "examples" / example).read_text(encoding="utf-8").replace("MODEL", "'./demo-model'", 0)
    in_example = {
        s.replace("model=MODEL", "model='./demo-model'")
        .replace("model_source=MODEL", "model_source='./demo-model'")
        .replace("BASE_URL", "'http://localhost:8000/v1'")
        for s in statements(source)
    }
    for statement in statements(code_blocks()[index]):
        assert statement in in_example, statement


def test_every_command_line_is_known() -> None:
    for line in re.findall(r"^trunnion (.*)$", README, flags=re.MULTILINE):
        words = re.sub(r"#.*", "", line).split()
        command = words[:2] if words[0] == "plugins" else words[:1]
        done = subprocess.run(
            [sys.executable, "-m", "trunnion_cli.main", *command, "--help"], capture_output=True, check=False
        )
        assert done.returncode == 0, line
