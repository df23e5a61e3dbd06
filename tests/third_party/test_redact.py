"""A plugin that nothing in Trunnion refers to, as its users have it: built as a wheel, installed, tested there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from environments import PLUGINS, ROOT, environment, pip_install, run, wheel

pytestmark = pytest.mark.slow

PROJECT = PLUGINS / "trunnion-redact"


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> tuple[Path, Path]:
    """Install the wheel; return the Python and a folder with the tests alone, so that no source is found."""
    folder = tmp_path_factory.mktemp("redact")
    python = environment(folder / "venv")
    pip_install(python, wheel(PROJECT, folder))
    shutil.copytree(PROJECT / "tests", folder / "project" / "tests")
    shutil.copy(PROJECT / "pyproject.toml", folder / "project")
    return python, folder / "project"


def test_the_wheel_holds_the_package_and_its_types(installed):
    python, project = installed
    said = run(python, "-c", "import trunnion_redact as r; print(r.__file__)", cwd=project)
    assert str(project.parent) in said
    assert (Path(said.strip()).parent / "py.typed").exists()


def test_it_registers_and_prints_its_settings(installed):
    python, project = installed
    said = run(python, "-m", "trunnion_cli.main", "plugins", "list", cwd=project)
    assert "redact_restore" in said
    assert "default_region" in run(python, "-m", "trunnion_cli.main", "plugins", "schema", "redact", cwd=project)


def test_its_own_tests_pass(installed):
    python, project = installed
    assert " passed" in run(python, "-m", "pytest", "-q", "-p", "no:benchmark", "-m", "not ray", cwd=project)


@pytest.mark.ray
def test_its_own_tests_on_ray_pass(installed):
    python, project = installed
    assert "2 passed" in run(python, "-m", "pytest", "-q", "-p", "no:benchmark", "-m", "ray", cwd=project)


def test_its_types_hold(installed):
    python, _ = installed
    run(python, "-m", "mypy", "--cache-dir", python.parents[1] / "mypy", cwd=PROJECT)


def test_nothing_refers_to_it():
    names = ("trunnion_redact", "trunnion-redact", "redact_restore")
    for part in ("core", "plugins", "adapters"):
        for path in (ROOT / part).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not any(name in text for name in names), path
