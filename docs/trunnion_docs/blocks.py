"""Keep the generated parts of pages, which stand between markers so that they can be read in the repository as well."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import trunnion
from trunnion import errors, testing
from trunnion_cli.capability_table import capability_table

from .signatures import declaration

PAGES: Final = Path(__file__).parents[1]
_API: Final = re.compile(r"(<!-- api (?P<path>[\w.]+:\w+) -->\n).*?(<!-- /api -->)", re.DOTALL)
_MADE: Final = re.compile(r"(<!-- made (?P<name>[\w-]+) -->\n).*?(<!-- /made -->)", re.DOTALL)


def documented(page: str) -> list[str]:
    """Return what a page declares between markers, as ``module:name``, in its order."""
    return [match["path"] for match in _API.finditer(page)]


def rewritten(page: str) -> str:
    """Return a page with every block as the code has it now. Raises KeyError for a block that nothing makes."""
    page = _API.sub(lambda m: f"{m[1]}```python\n{declaration(m['path'])}\n```\n{m[3]}", page)
    return _MADE.sub(lambda m: f"{m[1]}{_MAKERS[m['name']]().strip()}\n{m[3]}", page)


def rewrite() -> list[Path]:
    """Rewrite every page whose blocks differ from the code, and return those pages."""
    changed = []
    for path in sorted(PAGES.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        if (new := rewritten(page)) != page:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def _error_tree() -> str:
    """Return the drawing in the docstring of the errors."""
    text = inspect.cleandoc(errors.__doc__ or "").split("::\n\n", 1)[1]
    drawn = [line.removeprefix("    ") for line in text.split("\n\n")[0].splitlines()]
    return "\n".join(["```text", *drawn, "```"])


def _errors() -> str:
    """Return a table of every error: its class and what it says."""
    rows = ["| error | meaning |", "|---|---|"]
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.TrunnionError) and value is not errors.TrunnionError:
            meaning = (value.__doc__ or "").split("\n\n")[0].replace("``", "`").replace("\n", " ")
            rows.append(f"| `{name}` | {' '.join(meaning.split())} |")
    return "\n".join(rows)


def _engines() -> str:
    """Return the table of what each engine of this project can do."""
    registry = trunnion.get_registry()
    return capability_table(registry.engines(), registry.stages())


def _kit() -> str:
    """Return a table of the standard tests of each suite: their names and what they hold."""
    lines: list[str] = []
    for suite in (value for name, value in vars(testing).items() if name.endswith("Suite")):
        lines += ["", f"### {suite.__name__}", "", "| test | what holds |", "|---|---|"]
        for cls in suite.__mro__:
            for name, test in vars(cls).items():
                if name.startswith("test_"):
                    says = " ".join((test.__doc__ or "").split()).replace("``", "`")
                    lines.append(f"| `{name}` | {says} |")
    return "\n".join(lines)


_MAKERS: Final[Mapping[str, Callable[[], str]]] = {
    "error-tree": _error_tree,
    "errors": _errors,
    "engines": _engines,
    "kit": _kit,
}
