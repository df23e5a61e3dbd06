"""`trunnion plugins new`: names, files, refusals. That what it writes works is tested in tests/third_party."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from trunnion import API_VERSION, PluginPolicy, Registry, __version__, choose_engine
from trunnion.errors import PluginNotFound
from trunnion_cli.main import main

KINDS = ("engine", "stage", "router", "hooks")
LONGEST = "a-name-that-is-as-long-as-9999"
COMMON = {
    ".github/workflows/test.yml", ".gitignore", "README.md", "pyproject.toml", "tests/conftest.py",
    "tests/test_foo.py", "trunnion_foo/__init__.py", "trunnion_foo/config.py", "trunnion_foo/py.typed",
}  # fmt: skip
ROOT = Path(__file__).parents[2]
NEEDED = f"trunnion>={'.'.join(__version__.split('.')[:2])}"
OWN = {"engine": {"engine.py", "runtime.py"}, "stage": {"stage.py"}, "router": {"router.py"}, "hooks": {"hooks.py"}}


def new(*arguments):
    return main(["plugins", "new", *map(str, arguments)])


@pytest.fixture
def site_of(monkeypatch):
    """Return a function that loads the plugin of a folder, and nothing else."""
    before = set(sys.modules)

    def load(folder):
        monkeypatch.syspath_prepend(str(folder))
        found = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]["trunnion.plugins"]
        points = tuple(EntryPoint(name, value, "trunnion.plugins") for name, value in found.items())
        return Registry(PluginPolicy(), entry_points=points)

    yield load
    for name in set(sys.modules) - before:
        if name.partition(".")[0].startswith("trunnion_foo"):
            del sys.modules[name]


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_repository_is_written(kind, tmp_path, capsys):
    folder = tmp_path / "made"
    assert new("foo", "--kind", kind, "--output", folder) == 0
    assert files(folder) == COMMON | {f"trunnion_foo/{name}" for name in OWN[kind]}
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "trunnion-foo"
    assert project["license"] == "Apache-2.0"
    assert project["entry-points"]["trunnion.plugins"] == {"foo": "trunnion_foo"}
    said = capsys.readouterr().out
    assert str(folder / "trunnion_foo" / "__init__.py") in said
    assert "pip install -e '.[test]' && pytest" in said
    assert "python-version: ${{ matrix.python }}" in (folder / ".github/workflows/test.yml").read_text()


def test_without_further_words_it_is_an_engine_in_a_folder_called_like_the_distribution(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new("foo") == 0
    assert "trunnion_foo/engine.py" in files(tmp_path / "trunnion-foo")


@pytest.mark.parametrize(
    ("given", "name", "distribution", "class_name"),
    [
        ("foo", "foo", "trunnion-foo", "Foo"),
        ("Foo", "foo", "trunnion-foo", "Foo"),
        ("trunnion-foo", "foo", "trunnion-foo", "Foo"),
        ("my_own-v2", "my_own_v2", "trunnion-my-own-v2", "MyOwnV2"),
    ],
)
def test_names_are_derived(given, name, distribution, class_name, tmp_path):
    assert new(given, "--output", tmp_path) == 0
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["name"] == distribution
    assert project["entry-points"]["trunnion.plugins"] == {name: f"trunnion_{name}"}
    assert f"class {class_name}Engine:" in (tmp_path / f"trunnion_{name}" / "engine.py").read_text()


@pytest.mark.parametrize("given", ["", "9foo", "foo bar", "foo--bar", "-foo", "foo-", "../foo", "fö", "a" * 31])
def test_bad_names_are_refused(given, tmp_path, capsys):
    assert new("--output", tmp_path / "made", "--", given) == 2
    assert "is no name for a plugin" in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        ("sim", "engine", "there is an engine 'sim' already, of trunnion"),
        ("sim", "stage", "the entry point 'sim' is taken by trunnion"),
        ("least-loaded", "router", "there is a router 'least_loaded' already"),
        ("http", "engine", "a package trunnion_http is installed already"),
    ],
)
def test_names_that_are_taken_are_refused(given, kind, words, tmp_path, capsys):
    assert new(given, "--kind", kind, "--output", tmp_path / "made") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert new("foo", "--output", tmp_path) == 2
    assert f"{tmp_path} is not empty; name another folder with --output" in capsys.readouterr().err
    assert files(tmp_path) == {"mine.txt"}
    assert new("foo", "--output", tmp_path / "mine.txt") == 2
    assert "is no folder" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_kinds_are_those_there_are(tmp_path, capsys):
    assert new("foo", "--kind", "motor", "--output", tmp_path) == 2
    assert "'engine', 'stage', 'router', 'hooks'" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_an_error(capsys):
    assert new("foo", "--output", "/proc/trunnion-foo") == 2
    assert "/proc/trunnion-foo" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["x", LONGEST])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_linted_formatted_and_has_no_token_left(kind, name, tmp_path):
    assert new(name, "--kind", kind, "--output", tmp_path) == 0
    for command in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
        ruff = Path(sys.executable).with_name("ruff")
        done = subprocess.run([ruff, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
    texts = [path.read_text(encoding="utf-8") for path in tmp_path.rglob("*") if path.is_file()]
    assert not [text for text in texts if re.search("%[A-Z]+%", text)]


@pytest.mark.parametrize("kind", KINDS)
def test_versions_agree_with_what_writes_it(kind, tmp_path):
    """The plugin API is today's, and the dependency is the Trunnion that has it."""
    assert new("foo", "--kind", kind, "--output", tmp_path) == 0
    assert f"api_version={API_VERSION}," in (tmp_path / "trunnion_foo" / "__init__.py").read_text()
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    assert project["dependencies"] == [NEEDED]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/write-a-plugin.md", "docs/plugin-api.md"])
def test_pages_print_the_same_dependency(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert re.findall(r'dependencies = \["(trunnion[^"]*)"\]', text) == [NEEDED]


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_where_trunnion_comes_from(kind, tmp_path):
    """Trunnion is on no package index: without it, nothing that is written could be installed."""
    assert new("foo", "--kind", kind, "--output", tmp_path) == 0
    readme = (tmp_path / "README.md").read_text()
    for words in ("on no package index", "pip install -e PATH/OF/THE/CLONE", 'pip install "git+https://'):
        assert words in readme
    workflow = (tmp_path / ".github/workflows/test.yml").read_text()
    assert "TRUNNION_SOURCE: ${{ vars.TRUNNION_SOURCE }}" in workflow
    (install,) = re.findall(r"- run: (pip install .*TRUNNION_SOURCE.*)", workflow)
    assert workflow.index(install) < workflow.index("pip install -e '.[test]'")
    done = subprocess.run(["/bin/bash", "-c", install], env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "set the repository variable TRUNNION_SOURCE" in done.stderr


def test_a_new_engine_waits_to_be_named_and_says_how_to_be_a_choice(tmp_path, site_of):
    """A toy that answers "auto" with the prompt itself would be a bad surprise."""
    assert new("foo", "--output", tmp_path) == 0
    assert "suits=" in (tmp_path / "README.md").read_text()
    assert "`suits`" in (tmp_path / "trunnion_foo" / "__init__.py").read_text()
    with pytest.raises(PluginNotFound, match="foo: it does not say what it suits; name it to use it"):
        choose_engine("some/model", registry=site_of(tmp_path))


def test_the_templates_are_part_of_the_distribution():
    """They lie in a package that the wheel takes whole, and no ignore pattern leaves one out."""
    templates = sorted((ROOT / "adapters" / "trunnion_cli" / "templates").rglob("*.in"))
    assert len(templates) > 25
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", *map(str, templates)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ignored.stdout == ""
