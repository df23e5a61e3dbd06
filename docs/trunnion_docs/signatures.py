"""Write declarations of the plugin API as they stand in the source: signatures, docstrings, fields, without code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

_CONTRACT: Final = (
    "hookspecs", "plugin", "capabilities", "engine", "stage", "router", "hooks", "fetch", "requests", "formats",
    "events", "errors", "spec", "suitability", "startup", "deprecation",
)  # fmt: skip
_NO_PLUGINS_BUSINESS: Final = frozenset({
    "trunnion.hooks:HookChain", "trunnion.hooks:HooksOrigin", "trunnion.startup:StartupClock",
    "trunnion.startup:Startup",
    "trunnion.spec:StageSpec", "trunnion.spec:PipelineSpec", "trunnion.spec:EngineSpec", "trunnion.spec:PluginPolicy",
    "trunnion.spec:HooksSpec",
})  # fmt: skip
"""Public classes of those modules that no plugin makes, implements or is given."""
_SAID_PLAINLY: Final = {"_DEFAULT_SAMPLING": "SamplingParams()"}


def contract() -> list[str]:
    """Return everything a third party writes against, as ``module:name``, in the order of the source."""
    return [path for name in _CONTRACT for path in _declared(importlib.import_module(f"trunnion.{name}"))]


def _declared(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        path = f"{module.__name__}:{name}"
        here = getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
        is_hook = inspect.isfunction(value) and name.startswith("trunnion_")
        if here and path not in _NO_PLUGINS_BUSINESS and (inspect.isclass(value) or is_hook):
            yield path


def find(path: str) -> Any:
    """Return the object called ``module:name``."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def declaration(path: str) -> str:
    """Return the source of a class or function, without what is private and without bodies."""
    lines = textwrap.dedent(inspect.getsource(find(path))).splitlines()
    tree = ast.parse("\n".join(lines)).body[0]
    assert isinstance(tree, ast.ClassDef | ast.FunctionDef)
    dropped = set(_unwanted(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node) is None:
            at = node.body[0].lineno - 1
            lines[at] = re.sub(r"\S.*", "...", lines[at])
    kept = "\n".join(line for number, line in enumerate(lines, 1) if number not in dropped)
    for private, plain in _SAID_PLAINLY.items():
        kept = kept.replace(private, plain)
    kept = re.sub(r"[ ]+# (type|noqa|fmt)[:a-z -].*", "", kept)
    kept = re.sub(r":\n +\.\.\.$", ": ...", kept, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", kept).strip()


def _unwanted(node: ast.ClassDef | ast.FunctionDef) -> Iterator[int]:
    """Yield the numbers of lines to leave out: private functions, and bodies after their docstring."""
    if isinstance(node, ast.FunctionDef):
        yield from _body(node)
        return
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            if _is_shown(item, node):
                yield from _body(item)
            else:
                first = min([item.lineno, *(mark.lineno for mark in item.decorator_list)])
                yield from range(first, _end(item) + 1)


def _is_shown(function: ast.FunctionDef | ast.AsyncFunctionDef, owner: ast.ClassDef) -> bool:
    is_error = any(isinstance(base, ast.Name) and base.id == "Exception" for base in owner.bases)
    return not function.name.startswith("_") or (is_error and function.name == "__init__")


def _body(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    """Yield the lines of a function's body; what has no docstring keeps its first line, for an ellipsis."""
    for statement in node.body:
        first = statement.lineno + (statement is node.body[0])
        if statement is not node.body[0] or ast.get_docstring(node) is None:
            yield from range(first, _end(statement) + 1)


def _end(node: ast.stmt) -> int:
    assert node.end_lineno is not None
    return node.end_lineno
