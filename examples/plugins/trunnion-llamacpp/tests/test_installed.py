"""Hold that what is tested is the wheel, in this process and on Ray's workers, and that it names no other plugin."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from pathlib import Path

import pytest
import trunnion

import trunnion_llamacpp

SOURCE = Path(__file__).parents[1]


def test_the_wheel_is_what_is_imported() -> None:
    assert "site-packages" in trunnion_llamacpp.__file__
    assert SOURCE not in Path(trunnion_llamacpp.__file__).parents
    files = importlib.metadata.files("trunnion-llamacpp") or []
    assert "trunnion_llamacpp/py.typed" in {str(file) for file in files}


def test_the_plugin_is_found_by_its_entry_point() -> None:
    (record,) = [one for one in trunnion.get_registry().plugins() if one.name == "llamacpp"]
    assert (record.state, record.distribution) == ("ok", "trunnion-llamacpp")


def test_it_imports_the_core_alone() -> None:
    for file in (SOURCE / "trunnion_llamacpp").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                assert not name.startswith("trunnion_"), (file, name)
                assert not any(part.startswith("_") for part in name.split(".")[1:]), (file, name)


def test_a_gguf_file_chooses_it_by_itself(models) -> None:
    assert trunnion.choose_engine(models.alone).engine == "llamacpp"
    assert trunnion.choose_engine(str(SOURCE)).engine != "llamacpp"


@pytest.mark.ray
def test_workers_import_the_wheel_too(ray_session) -> None:
    import ray

    def where() -> tuple[str, str]:
        import trunnion_llamacpp

        return trunnion_llamacpp.__file__, sys.executable

    assert ray.get(ray.remote(where).remote()) == (trunnion_llamacpp.__file__, sys.executable)
