"""Check the import path of an application as far as that can be done without importing what is not ours."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Iterator, Mapping
from functools import reduce
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final

from .problems import Problem
from .yaml_lines import Place

BUILDER: Final = "trunnion_ray.serve:build_openai_app"
"""The import path of applications whose ``args`` are an :class:`~trunnion_ray.serve.AppConfig`."""
BUILDERS: Final = frozenset({
    BUILDER, "trunnion_ray.serve.build_openai_app",
    "trunnion_ray.serve.build:build_openai_app", "trunnion_ray.serve.build.build_openai_app",
})  # fmt: skip
"""All ways to write it."""
_OURS: Final = __name__.partition(".")[0]
_BRINGS_CODE: Final = frozenset({
    "pip", "uv", "conda", "container", "image_uri", "py_modules", "working_dir", "py_executable",
})  # fmt: skip


def brings_code(given: Mapping[str, Any]) -> bool:
    """Tell whether the application's runtime environment has modules, perhaps, that are not installed here."""
    environment = given.get("runtime_env")
    return isinstance(environment, Mapping) and bool(_BRINGS_CODE.intersection(environment))


def check_import_path(given: Mapping[str, Any], place: Place, *, here: bool = True) -> Iterator[Problem]:
    """Yield that an application is nowhere: that our modules have no such name, or that there is no such module.

    No module of the user's is imported: that is done where the application is built.

    Args:
        given: The application as the file has it.
        place: Where it stands.
        here: Whether the user's own modules must be found on this machine.
    """
    path = given.get("import_path")
    if not isinstance(path, str):
        return
    top = path.replace(":", ".").partition(".")[0]
    if top == _OURS:
        if not _exists(path) and (near := _nearest(path) or (None if brings_code(given) else BUILDER)):
            yield Problem((*place, "import_path"), f"there is no {path}; did you mean {near}?")
        return
    environment = given.get("runtime_env")
    variables = environment.get("env_vars") if isinstance(environment, Mapping) else None
    if not here or brings_code(given) or os.environ.get("RAY_ADDRESS"):
        return
    if isinstance(variables, Mapping) and "PYTHONPATH" in variables:
        return
    if top not in sys.builtin_module_names and PathFinder.find_spec(top, [str(Path.cwd()), *sys.path]) is None:
        message = (
            f"there is no module {top!r} here; start this where it lies, or give `runtime_env: {{working_dir: ...}}`"
        )
        yield Problem((*place, "import_path"), message)


def _exists(path: str) -> bool:
    """Tell whether one of our modules has what an import path names, which Serve reads in the same two ways."""
    module, _, name = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        reduce(getattr, name.split("."), importlib.import_module(module))
    except (ImportError, AttributeError, ValueError):  # the last of an empty name
        return False
    return True


def _nearest(path: str) -> str | None:
    """Return the public import path that is most like one that is none."""
    known = [*BUILDERS, *(f"{BUILDER.partition(':')[0]}:{name}" for name in _public())]
    return next(iter(difflib.get_close_matches(path, known, n=1, cutoff=0.8)), None)


def _public() -> list[str]:
    return list(importlib.import_module(BUILDER.partition(":")[0]).__all__)
