"""The kit tests itself: each deliberately broken engine fails the tests meant for it, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

BROKEN = Path(__file__).parent / "broken"
sys.path.insert(0, str(BROKEN))
from broken_engines import EXPECTED  # noqa: E402

sys.path.remove(str(BROKEN))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> dict[str, set[str]]:
    """Run every suite once in a process where the broken engines are installed; return what failed, by suite."""
    report = tmp_path_factory.mktemp("kit") / "report.xml"
    command = [
        sys.executable, "-m", "pytest", "-q", str(BROKEN / "suites.py"), "-c", os.devnull, "--rootdir", str(BROKEN),
        "-p", "no:cacheprovider", "-p", "no:benchmark", "-p", "no:asyncio", "--trunnion-surfaces=",
        "-n", "2", "--dist", "loadscope", f"--junitxml={report}",
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


@pytest.mark.parametrize("fault", EXPECTED)
def test_a_broken_engine_fails_what_is_meant_for_it(failed: dict[str, set[str]], fault: str) -> None:
    assert failed["Test_" + fault.replace("-", "_")] == EXPECTED[fault]
