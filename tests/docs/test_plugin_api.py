"""docs/plugin-api.md is the whole plugin API, in the words and signatures of the code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from pathlib import Path

import pytest
from trunnion_docs.blocks import documented, rewritten
from trunnion_docs.signatures import contract, declaration, find

import trunnion
from trunnion import errors
from trunnion.capabilities import PROTOCOLS
from trunnion.loader import _KINDS, PluginState

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "plugin-api.md").read_text(encoding="utf-8")
SURFACE = json.loads((ROOT / "tests" / "core" / "frozen_api_1_0.json").read_text(encoding="utf-8"))
ERRORS = {path for path in contract() if path.startswith("trunnion.errors:") and not path.endswith(":TrunnionError")}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_every_block_is_what_the_code_has() -> None:
    assert rewritten(PAGE) == PAGE, "run `make docs`, which rewrites the generated parts"


def test_everything_of_the_contract_is_there_once() -> None:
    assert sorted(documented(PAGE)) == sorted(set(contract()) - ERRORS)


def test_every_error_is_in_the_tree_and_in_the_table() -> None:
    for path in ERRORS:
        name = path.partition(":")[2]
        assert len(re.findall(rf"\b{name}\b", section("Errors"))) >= 2


def test_every_hook_has_an_entry() -> None:
    assert re.findall(r"^### (trunnion_\w+)$", section("Hooks of registration"), flags=re.MULTILINE) == list(_KINDS)
    for name in _KINDS:
        doc = inspect.getdoc(find(f"trunnion.hookspecs:{name}")) or ""
        for words in ("Called when", "factor", "An empty list means none."):
            assert words in doc, f"{name}: its docstring must say when it is called, and what an empty list means"


def signature_in(block: str, name: str) -> ast.arguments:
    """Return the arguments of a function or method as a block declares them."""
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return node.args
    raise AssertionError(f"{name} is not declared in\n{block}")


METHODS = [
    (path, name)
    for path in contract()
    if inspect.isclass(find(path))
    for name, value in vars(find(path)).items()
    if not name.startswith("_") and inspect.isfunction(getattr(find(path), name)) and value.__module__ != "enum"
]


@pytest.mark.parametrize(("path", "method"), METHODS)
def test_every_method_has_the_parameters_that_inspect_sees(path: str, method: str) -> None:
    """The blocks are cut from the source; this looks at the live objects."""
    seen = inspect.signature(getattr(find(path), method)).parameters.values()
    declared = signature_in(declaration(path), method)
    names = [one.arg for one in (*declared.posonlyargs, *declared.args)]
    assert names == [one.name for one in seen if one.kind is one.POSITIONAL_OR_KEYWORD]
    assert [one.arg for one in declared.kwonlyargs] == [one.name for one in seen if one.kind is one.KEYWORD_ONLY]
    no_default = [one.name for one in seen if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    assert [k.arg for k, v in zip(declared.kwonlyargs, declared.kw_defaults, strict=True) if v is None] == no_default


@pytest.mark.parametrize("path", [path for path in contract() if dataclasses.is_dataclass(find(path))])
def test_every_value_has_the_fields_that_dataclasses_see(path: str) -> None:
    (declared,) = ast.parse(declaration(path)).body
    assert isinstance(declared, ast.ClassDef)
    annotated = [item for item in declared.body if isinstance(item, ast.AnnAssign)]
    names = [item.target.id for item in annotated if isinstance(item.target, ast.Name)]
    own = [name for name in names if "ClassVar" not in find(path).__annotations__[name]]
    assert own == [field.name for field in dataclasses.fields(find(path))]


def test_every_feature_has_a_meaning() -> None:
    told = set(
        re.findall(r"`([\w.]+)`", "".join(re.findall(r"^\| (`.*?`) \|", section("Capabilities"), flags=re.MULTILINE)))
    )
    assert told == set(trunnion.FEATURES)


def test_every_optional_protocol_is_named_with_its_version() -> None:
    rows = re.findall(r"^\| `(\w+/\d+)` \| `(\w+)` \|", section("Engines"), flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(PROTOCOLS)
    for name, protocol in rows:
        assert f"``{name}``" in (find(f"trunnion.engine:{protocol}").__doc__ or "")


def test_every_state_is_explained_with_its_error() -> None:
    rows = dict(re.findall(r"^\| `([\w ]+)` \|.*\| (?:`(\w+)`)? ?\|$", section("States"), flags=re.MULTILINE))
    assert list(rows) == [state.value for state in PluginState]
    assert rows.pop("ok") == ""
    for name in rows.values():
        assert issubclass(getattr(errors, name), errors.PluginError)


def test_the_methods_of_hooks_are_explained() -> None:
    told = re.findall(r"^\| `(\w+)` \|", section("Request hooks"), flags=re.MULTILINE)
    assert told == [name for name in vars(trunnion.RequestHooks) if not name.startswith("_")]


def test_the_version_is_todays() -> None:
    here = ".".join(map(str, trunnion.API_VERSION))
    assert f"| your `api_version` | under plugin API {here} |" in PAGE
    versions = re.findall(r"^- \*\*(\d+)\.(\d+)\*\*", section("Versions"), flags=re.MULTILINE)
    assert [(int(major), int(minor)) for major, minor in versions] == [
        (1, minor) for minor in range(trunnion.API_VERSION[1] + 1)
    ]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/write-a-plugin.md", "docs/plugin-api.md"])
def test_plugins_that_are_printed_are_written_for_todays_version(page: str) -> None:
    """The scaffold writes the same: it takes ``API_VERSION``; tests/cli/test_scaffold.py looks."""
    printed = re.findall(r"api_version=(\(\d+, \d+\))", (ROOT / page).read_text(encoding="utf-8"))
    assert printed
    assert set(printed) == {str(trunnion.API_VERSION)}


def test_the_example_of_the_field_is_todays_version() -> None:
    doc = inspect.getdoc(trunnion.EnginePlugin) or ""
    assert f"such as ``{trunnion.API_VERSION}``" in doc


def test_what_came_after_1_0_is_listed() -> None:
    before = {path.partition(":")[2] for path in SURFACE["names"]}
    came = set(trunnion.__all__) - before
    for path, fields in SURFACE["dataclasses"].items():
        came |= {field.name for field in dataclasses.fields(find(path)) if field.name not in fields}
    came |= set(PROTOCOLS) - set(SURFACE["values"]["trunnion.capabilities:PROTOCOLS"])
    told = set(re.findall(r"[\w/]+", " ".join(re.findall(r"`([^`]+)`", section("Versions")))))
    assert came - told == set(), "docs/plugin-api.md lists what each version brought"
