"""Install distributions as their users would, into environments that see this one's packages."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLUGINS = ROOT / "examples" / "plugins"


def environment(folder: Path) -> Path:
    """Make an environment and return its Python. What it has itself is found first."""
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    site = next(folder.glob("lib/python*/site-packages"))
    (site / "base.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return folder / "bin" / "python"


def wheel(project: Path, folder: Path) -> Path:
    """Build the wheel of a project with pip, and return its path."""
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--disable-pip-version-check", "-w", folder, project)
    (made,) = folder.glob("*.whl")
    return made


def pip_install(python: Path, *what: object, cwd: Path | None = None) -> None:
    """Install into the environment of a Python: what this one has counts as installed."""
    run(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *what, cwd=cwd)


def run(*command: object, cwd: Path | None = None, timeout: float = 280, **options: object) -> str:
    """Run a command and return what it printed; on failure its output is the message."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        timeout=timeout, **options,
    )  # fmt: skip
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
