"""Run the kit on an installed plugin, in a process of its own, and say what came of it."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from xml.etree import ElementTree as ET

from trunnion.errors import ConfigError, InternalError

from .advice import in_cli_terms

if TYPE_CHECKING:
    from trunnion.registry import Registry

VARIABLE: Final = "TRUNNION_KIT"
"""Environment variable that tells the process what to check, as JSON."""
Outcome = Literal["passed", "failed", "skipped"]
_SHOWN: Final = re.compile(r"assert |[-+?] |\+ +where |Use -v |Full diff|At index |(Left|Right) contains|$")
"""Lines of pytest's that show what was compared."""
_SUITES: Final = {"engine": "EngineSuite", "stage": "StageSuite", "router": "RouterSuite", "hooks": "HooksSuite"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Say what to check.

    Attributes:
        plugin: The plugin's name.
        kind: "engine", "stage", "router" or "hooks".
        model: The engine's model; for a stage the model whose tokenizer it uses.
        config: The plugin's settings.
        adapters: LoRA adapters of the model, name to path.
        tokenizer: The model's tokenizer, where the engine names none.
        prompt: What an engine is asked; None for the kit's own.
        narrow: Settings with which an engine runs one request at a time.
        embedding, embedding_model: Settings and model with which it embeds.
        surfaces: Surfaces to ask an engine on; None for all that are installed.
        select: Expression of pytest's ``-k``; empty for all tests.
    """

    plugin: str
    kind: str
    model: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    adapters: Mapping[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    prompt: str | None = None
    narrow: Mapping[str, Any] = field(default_factory=dict)
    embedding: Mapping[str, Any] = field(default_factory=dict)
    embedding_model: str | None = None
    surfaces: str | None = None
    select: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestResult:
    """Hold what came of one standard test: what it holds the plugin to, and why it failed or was left out."""

    name: str
    outcome: Outcome
    rule: str
    why: str = ""


def check_settings(
    registry: Registry, engine: str, model: str | None, config: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the settings an engine is checked with: the plugin's ``check_config``, and the user's, which win.

    Where the two do not go together the user's stand alone.
    """
    mine = dict(config or {})
    both = {**registry.engine(engine).check_config, **mine}
    try:
        registry.engine_spec(engine, model, both)
    except ConfigError:
        return mine
    return both


def run_check(check: Check, *, on_output: Callable[[str], object] | None = None) -> list[TestResult]:
    """Run the suite of the plugin's kind, and return one result per test.

    Args:
        check: What to check.
        on_output: Called with pytest's own output as it comes: a sign for each test that is through.

    Raises:
        ConfigError: pytest is not installed, there is no such surface, or ``select`` fits no test.
        InternalError: The process ended without a report; the message has its last lines.
    """
    if check.kind not in _SUITES:
        kinds = ", ".join(_SUITES)
        raise ConfigError(
            f"the kit has no suite for plugins of kind {check.kind!r} ({check.plugin}); it has them for {kinds}",
            param="kind",
        )
    if importlib.util.find_spec("pytest") is None:
        raise ConfigError("the kit needs pytest: pip install pytest")
    _check_surfaces(check.surfaces)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", str(Path(__file__).with_name("installed.py"))]
        command += ["-p", "trunnion.testing", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", folder]
        command += ["-q", "--tb=no", "--no-summary", f"--junitxml={report}"]
        if check.surfaces is not None:
            command.append(f"--trunnion-surfaces={check.surfaces}")
        if check.select:
            command += ["-k", check.select]
        environment = {**os.environ, VARIABLE: json.dumps(asdict(check)), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        code, output = _run(command, environment, on_output)
        if not report.exists():
            raise InternalError(f"the kit ended without a report (exit code {code})\n{output[-2000:]}".rstrip())
        results = _read(report, check.kind)
    if not results:
        raise ConfigError(f"no test of the kit fits {check.select!r}", param="select")
    return results


def _check_surfaces(chosen: str | None) -> None:
    from .surface import surface_names

    known = surface_names()
    wrong = [name for name in (chosen or "").split(",") if name and name not in known]
    if wrong:
        there = ", ".join(known) or "none"
        raise ConfigError(f"there is no surface {wrong[0]!r}; there are: {there}", param="surfaces")


def _run(
    command: list[str], environment: Mapping[str, str], on_output: Callable[[str], object] | None
) -> tuple[int, str]:
    """Run a command, pass its output on as it comes, and return its exit code and all it said."""
    said: list[str] = []
    with subprocess.Popen(  # noqa: S603 - this very program
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
    ) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(4096):
            said.append(piece.decode(errors="replace"))
            if on_output is not None:
                on_output(said[-1])
    return process.returncode, "".join(said)


def _read(report: Path, kind: str) -> list[TestResult]:
    suite = getattr(importlib.import_module("trunnion.testing"), _SUITES[kind])
    results = []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - written by pytest, a moment ago
        name = case.get("name", "")
        doc = getattr(getattr(suite, name.partition("[")[0], None), "__doc__", None) or ""
        failed = case.find("failure") if case.find("failure") is not None else case.find("error")
        skipped = case.find("skipped")
        outcome: Outcome = (
            "passed" if failed is None and skipped is None else "failed" if failed is not None else "skipped"
        )
        said = failed if failed is not None else skipped
        why = "" if said is None else in_cli_terms(one_line(said.get("message") or ""))
        results.append(TestResult(name=name, outcome=outcome, rule=" ".join(doc.split()), why=why))
    return results


def one_line(message: str) -> str:
    """Return what pytest says of a failure without what it shows of the values compared.

    An assertion's own message stands for the comparison; a comparison without one stays, without its diff.
    """
    first, *rest = message.strip().splitlines() or [""]
    kept = [first.removeprefix("failed on setup with ").strip('"')]
    for line in map(str.strip, rest):
        if _SHOWN.match(line):
            break
        kept.append(line)
    line = " ".join(" ".join(kept).split())
    for prefix in ("AssertionError: ", "Failed: "):
        line = line.removeprefix(prefix)
    return line


def summary(results: Sequence[TestResult]) -> dict[Outcome, int]:
    """Count the outcomes."""
    counts: dict[Outcome, int] = {"passed": 0, "failed": 0, "skipped": 0}
    for result in results:
        counts[result.outcome] += 1
    return counts
