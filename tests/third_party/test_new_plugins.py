"""What `trunnion plugins new` writes can be installed with pip, and keeps the contract as it stands."""

from __future__ import annotations

import os
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


HOSTILE = """
from trunnion import HooksPlugin, hookimpl
from trunnion.errors import PermissionDenied


class Hostile:
    def before_request(self, request):
        raise PermissionDenied("nobody gets through")


@hookimpl
def trunnion_hooks():
    return [HooksPlugin(name="hostile", factory="trunnion_hostile:hostile")]


def hostile(config):
    return Hostile()
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """Make a folder with hooks that refuse every request; on Python's path they are installed."""
    folder = tmp_path_factory.mktemp("hostile")
    info = folder / "trunnion_hostile-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trunnion-hostile\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trunnion.plugins]\nhostile = trunnion_hostile\n")
    (folder / "trunnion_hostile.py").write_text(HOSTILE)
    return folder


def test_its_own_tests_pass_whatever_hooks_are_installed_beside_it(plugin, hostile):
    _, project, python = plugin
    command = (python, "-m", "pytest", "-q", "-p", "no:benchmark", "--trunnion-surfaces=http")
    assert " passed" in run(*command, cwd=project, env={**os.environ, "PYTHONPATH": str(hostile)})


def test_hooks_beside_it_are_in_force_and_listed_so(plugin, hostile):
    _, project, python = plugin
    environment = {**os.environ, "PYTHONPATH": str(hostile)}
    said = run(python, "-m", "trunnion_cli.main", "plugins", "list", cwd=project, env=environment)
    (line,) = [line for line in said.splitlines() if "trunnion-hostile" in line]
    assert "in force: every request passes through" in line


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
