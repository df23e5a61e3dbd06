"""What `trunnion plugins new` writes can be installed with pip, and keeps the contract as it stands."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from environments import environment, pip_install, run

pytestmark = pytest.mark.slow

KINDS = ("engine", "stage", "router", "hooks")


@pytest.fixture(scope="module", params=KINDS)
def plugin(request, tmp_path_factory) -> tuple[str, Path, Path]:
    """Write a plugin and install it; return its kind, its folder, and the Python it is installed for."""
    folder = tmp_path_factory.mktemp(request.param)
    project = folder / "trunnion-my-plugin"
    trunnion = (sys.executable, "-m", "trunnion_cli.main")
    run(*trunnion, "plugins", "new", "my-plugin", "--kind", request.param, "--output", project)
    python = environment(folder / "venv")
    pip_install(python, "-e", project)
    return request.param, project, python


def test_its_own_tests_pass(plugin):
    _, project, python = plugin
    assert " passed" in run(python, "-m", "pytest", "-q", "-p", "no:benchmark", "--trunnion-surfaces=http", cwd=project)


@pytest.mark.ray
def test_an_engine_answers_the_same_on_ray(plugin):
    kind, project, python = plugin
    if kind == "engine":
        said = run(python, "-m", "pytest", "-q", "-p", "no:benchmark", "-k", "answers_the_same and ray", cwd=project)
        assert "2 passed" in said


def test_its_types_hold(plugin):
    _, project, python = plugin
    run(python, "-m", "mypy", "--cache-dir", project / ".mypy_cache", cwd=project)


def test_it_is_found_and_described(plugin):
    kind, project, python = plugin
    trunnion = (python, "-m", "trunnion_cli.main")
    found = run(*trunnion, "plugins", "list", cwd=project)
    assert "trunnion-my-plugin" in found
    assert "properties" in run(*trunnion, "plugins", "schema", "my_plugin", "--kind", kind, cwd=project)


def test_its_name_is_taken_from_then_on(plugin):
    kind, project, python = plugin
    said = run(
        python, "-c", "import sys; from trunnion_cli.main import main; sys.exit(main(sys.argv[1:]) != 2)",
        "plugins", "new", "my-plugin", "--kind", kind, "--output", project.parent / "again",
    )  # fmt: skip
    assert "my_plugin' already, of trunnion-my-plugin 0.1.0" in said


def test_an_engine_chats(plugin):
    kind, project, python = plugin
    if kind == "engine":
        said = run(python, "-m", "trunnion_cli.main", "chat", "--engine", "my_plugin", "-m", "hello there", cwd=project)
        assert "hello there hello there hello there hello there" in said
