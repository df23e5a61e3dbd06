"""Test the plugin as its users have it: its wheel, in an environment of its own that is kept.

    python examples/plugins/trunnion-llamacpp/run_tests.py [PYTEST ARGUMENTS]

The environment, ``.venv-llamacpp``, holds llama-cpp-python and the plugin's wheel; all else comes from the environment
that this runs in. llama-cpp-python has no wheels on PyPI: it is compiled once, in some minutes, and its wheel is kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

VERSION = os.environ.get("LLAMA_CPP_PYTHON", "0.3.36")
PLUGIN = Path(__file__).resolve().parent
ENVIRONMENT = PLUGIN.parents[2] / ".venv-llamacpp"
WHEELS = ENVIRONMENT / "wheels"
PYTHON = ENVIRONMENT / "bin" / "python"
BUILD = "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF"


def pip(*arguments: str | Path, **environment: str) -> None:
    command = [PYTHON, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, env={**os.environ, **environment})


def make_environment() -> None:
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    site = next(ENVIRONMENT.glob("lib/python*/site-packages"))
    # Appended, so that what the environment has itself is found first.
    base = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (site / "base.pth").write_text(base, encoding="utf-8")


def library() -> Path:
    """Return the wheel of llama-cpp-python, compiled if it is not there."""
    pattern = f"llama_cpp_python-{VERSION}-*.whl"
    if not list(WHEELS.glob(pattern)):
        if not (os.environ.get("CXX") or shutil.which("c++")):
            raise SystemExit(
                "error: llama-cpp-python is compiled, and there is no C++ compiler: set CXX, or install one"
            )
        print(f"compiling llama-cpp-python {VERSION}; this takes some minutes, once", flush=True)
        settings = {"CMAKE_ARGS": BUILD, "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
        settings = {name: os.environ.get(name, value) for name, value in settings.items()}
        pip("wheel", "-q", "--no-deps", "-w", WHEELS, f"llama-cpp-python=={VERSION}", **settings)
    return next(WHEELS.glob(pattern))


def plugin() -> Path:
    """Return the wheel of the plugin, built anew."""
    for old in WHEELS.glob("trunnion_llamacpp-*.whl"):
        old.unlink()
    pip("wheel", "-q", "--no-deps", "-w", WHEELS, PLUGIN)
    return next(WHEELS.glob("trunnion_llamacpp-*.whl"))


def main() -> int:
    make_environment()
    compiled, built = library(), plugin()
    pip("install", "-q", compiled, built)
    pip("install", "-q", "--no-deps", "--force-reinstall", built)  # the same version may hold other code
    # -P and another folder: the wheel is what is imported, not the source.
    command = [PYTHON, "-P", "-m", "pytest", "-q", "-c", PLUGIN / "pyproject.toml", *sys.argv[1:]]
    done = subprocess.run(
        command, check=False, cwd=PLUGIN / "tests", env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
