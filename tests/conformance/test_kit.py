"""The kit tests itself: each deliberately broken engine fails the tests meant for it, and no other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

BROKEN = Path(__file__).parent / "broken"
sys.path.insert(0, str(BROKEN))
import broken_engines  # noqa: E402
import broken_parts  # noqa: E402

sys.path.remove(str(BROKEN))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(file: str, report: Path) -> dict[str, set[str]]:
    """Run suites in a process where the broken plugins are installed; return what failed, by suite."""
    command = [
        sys.executable, "-m", "pytest", "-q", str(BROKEN / file), "-c", os.devnull, "--rootdir", str(BROKEN),
        "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:asyncio", "-p", "trunnion.testing",
        "--trunnion-surfaces=", "-n", "3", "--dist", "loadscope", f"--junitxml={report}",
    ]  # fmt: skip
    path = os.pathsep.join([str(BROKEN), *filter(None, sys.path)])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=850, check=False
    )
    assert report.exists(), done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, set[str]] = {}
    for case in ET.parse(report).iter("testcase"):
        names = found.setdefault(case.get("classname", "").rpartition(".")[2], set())
        if case.find("failure") is not None or case.find("error") is not None:
            names.add(case.get("name", ""))
    return found


@pytest.fixture(scope="module")
def engines(tmp_path_factory) -> dict[str, set[str]]:
    return run("suites.py", tmp_path_factory.mktemp("kit") / "report.xml")


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, set[str]]:
    return run("suites_of_parts.py", tmp_path_factory.mktemp("kit") / "report.xml")


@pytest.mark.parametrize("fault", broken_engines.EXPECTED)
def test_a_broken_engine_fails_what_is_meant_for_it(engines: dict[str, set[str]], fault: str) -> None:
    assert engines[suite(fault)] == broken_engines.EXPECTED[fault]


@pytest.mark.parametrize("fault", broken_parts.EXPECTED)
def test_a_broken_part_fails_what_is_meant_for_it(parts: dict[str, set[str]], fault: str) -> None:
    assert parts[suite(fault)] == broken_parts.EXPECTED[fault]


def suite(fault: str) -> str:
    return "Test_" + fault.replace("-", "_")


# The rules of the suites themselves.


@pytest.fixture
def author(tmp_path):
    """Return what runs an author's test module on the engine that breaks no rule, and gives its output."""

    def run_module(
        body: str,
        conftest: str = "",
        select: str = "usage or seed or described or Config",
        arguments: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "test_it.py").write_text(AUTHOR + textwrap.indent(textwrap.dedent(body), "    "))
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["trunnion.testing"]\n' + conftest)
        command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)]
        command += ["-p", "no:cacheprovider", "-p", "no:asyncio", "-k", select, *arguments]
        path = os.pathsep.join([str(BROKEN), str(tmp_path), *filter(None, sys.path)])
        environment = {**os.environ, "PYTHONPATH": path}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=False)

    return run_module


AUTHOR = """
import pytest
from trunnion import engine_spec
from trunnion.testing import EngineSuite


class TestIt(EngineSuite):
    plugin = "broken-drops-a-field"

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        return engine_spec("broken-drops-a-field")

"""


def test_an_expected_failure_needs_a_reason_and_must_fail(author):
    done = author("""xfail = {"test_field[sampling.seed]": "the library has no seeds yet"}""")
    assert done.returncode == 0, done.stdout
    assert "1 xfailed" in done.stdout
    done = author("""xfail = {"test_usage_adds_up": "it does add up"}""")
    assert done.returncode == 1
    assert "[XPASS(strict)] it does add up" in done.stdout


def test_a_standard_test_cannot_be_replaced_or_removed(author):
    for body in ("def test_usage_adds_up(self): pass", "test_usage_adds_up = None"):
        done = author(body)
        assert done.returncode == 2
        assert "TestIt changes the standard test test_usage_adds_up" in done.stdout


def test_a_standard_test_cannot_be_deleted_from_the_kit(author):
    done = author(
        "pass", conftest="from trunnion.testing import EngineSuite\ndel EngineSuite.__mro__[1].test_usage_adds_up\n"
    )
    assert done.returncode != 0
    assert "test_usage_adds_up" in done.stdout


def test_a_standard_test_cannot_be_skipped_by_a_hook(author):
    hook = """
import pytest
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.skip(reason="not today"))
"""
    done = author("pass", conftest=hook)
    assert done.returncode == 4
    assert "is skipped; name it in TestIt.xfail with the reason" in done.stderr + done.stdout


def test_a_misspelt_expected_failure_is_refused(author):
    done = author("""xfail = {"test_usage_add_up": "a typing error"}""")
    assert done.returncode == 4
    assert "'test_usage_add_up', which is no standard test" in done.stderr + done.stdout


# One cause is one failure.


def only_failure(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a run where one test failed and none passed."""
    assert done.returncode == 1, done.stdout
    last = done.stdout.strip().splitlines()[-1]
    assert re.match(r"1 (failed|error)|\d+ skipped, .*1 error", last), last
    assert "passed" not in last
    assert len(re.findall(r"^(?:FAILED|ERROR) ", done.stdout, flags=re.MULTILINE)) == 1, done.stdout
    return done.stdout


def test_a_plugin_that_is_not_there_is_reported_once(author):
    said = only_failure(author("""plugin = "broken-non" """))
    assert "no engine plugin is called 'broken-non'; did you mean 'broken-none'?" in said


def test_a_plugin_that_failed_is_reported_once_with_the_reason(author, tmp_path):
    (tmp_path / "ill.py").write_text("raise OSError('its licence has run out')")
    folder = tmp_path / "ill-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: ill\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[trunnion.plugins]\nill = ill\n")
    said = only_failure(author("""plugin = "ill" """))
    assert "engine 'ill' (ill 1.0) failed to load: " in said
    assert "its licence has run out" in said


def test_a_spec_that_cannot_be_made_is_reported_once(author):
    body = """
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        return engine_spec("broken-none", None, {"stepp": 1})
    """
    said = author(body, select="usage or seed")
    assert "did you mean 'step'" in only_failure(said)


def test_an_engine_that_does_not_start_is_reported_once(author):
    body = """
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls):
        return engine_spec("broken-none", None, {"fails": "the disk is full"})
    """
    said = only_failure(author(body, select="usage or seed"))
    assert "the engine does not start: " in said
    assert "the disk is full" in said


def test_a_surface_that_is_not_there_is_refused(author):
    done = author("pass", arguments=["--trunnion-surfaces=htttp"])
    assert done.returncode == 4
    assert "there is no surface 'htttp'; there are: http" in done.stderr + done.stdout
