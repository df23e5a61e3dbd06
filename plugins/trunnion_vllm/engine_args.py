"""Know the names of vLLM's engine arguments without importing vLLM, so that a typing error is refused at once."""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

_CLASSES: Final = ("EngineArgs", "AsyncEngineArgs")


@lru_cache(maxsize=1)
def known_engine_args() -> frozenset[str]:
    """Return the field names of AsyncEngineArgs, read from vLLM's source; empty where vLLM is not installed.

    Importing vLLM takes ten seconds and more, parsing this one file a tenth of one. What cannot be read here is
    checked again against the class itself when the engine starts.
    """
    try:
        spec = importlib.util.find_spec("vllm")
    except (ImportError, ValueError):
        return frozenset()
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    source = Path(spec.submodule_search_locations[0]) / "engine" / "arg_utils.py"
    try:
        tree = ast.parse(source.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return frozenset()
    return frozenset(
        item.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in _CLASSES
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_")
    )


def unknown_args_message(given: Iterable[str], known: Iterable[str]) -> str | None:
    """Return why a name among ``given`` is not an engine argument, with a suggestion; None if all are known."""
    names = sorted(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see the fields of vllm.AsyncEngineArgs"
            return f"vLLM has no engine argument {name!r}; {hint}"
    return None
