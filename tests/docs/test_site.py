"""The site builds from a clone, strictly, and says of settings and commands what the code says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import jsonschema
import pytest
from trunnion_docs import blocks, commands, pages, settings

import trunnion

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCES = [path for part in ("core", "plugins", "adapters") for path in (ROOT / part).rglob("*.py")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site, as `make docs` does."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)]
    env = {**os.environ, "PYTHONPATH": str(DOCS), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


def text_of(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def pages_of(site: Path) -> Iterator[Path]:
    yield from (page for page in site.rglob("*.html") if page.name != "404.html")


@pytest.mark.slow
def test_every_page_is_in_the_site(site: Path) -> None:
    for source in DOCS.rglob("*.md"):
        name = source.relative_to(DOCS).with_suffix("")
        assert (site / name / "index.html").exists() or name.name == "index"
    assert (site / "index.html").exists()


@pytest.mark.slow
def test_the_schema_of_config_files_is_in_the_site(site: Path) -> None:
    schema = json.loads((site / "serve.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert {"AppConfig", "ModelConfig", "sim.config"} <= set(schema["$defs"])


_FILLED = re.compile(r"<!-- fill |^::: ", re.MULTILINE)
FILLED = [path for path in sorted(DOCS.rglob("*.md")) if _FILLED.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", FILLED, ids=lambda path: path.stem)
def test_a_page_that_is_filled_in_says_so_in_a_clone_alone(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "*Filled by `make docs`, into build/site; meanwhile `" in text
    made = pages.filled(text)
    assert "Filled by" not in made
    assert "in a clone" not in made


@pytest.mark.parametrize("page", ["README.md", "docs/index.md"])
def test_the_engines_in_depth_are_linked(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    linked = {target.rpartition("/")[2] for target in re.findall(r"\]\(([^)#]+\.md)", text)}
    assert {"vllm.md", "endpoints.md", "sim.md"} <= linked


@pytest.mark.slow
def test_what_is_for_clones_is_not_on_the_site(site: Path) -> None:
    assert [page for page in pages_of(site) if "Filled by" in page.read_text(encoding="utf-8")] == []


@pytest.mark.slow
def test_readers_fetch_nothing_from_elsewhere(site: Path) -> None:
    for page in pages_of(site):
        html = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|iframe)[^>]+src=\"?https?://[^\s\">]+", html) == []
        assert re.findall(r"<link[^>]+rel=\"?(?:stylesheet|preload|icon)[^>]+href=\"?https?://[^\s\">]+", html) == []


@pytest.mark.slow
def test_every_setting_is_on_the_page_of_settings(site: Path) -> None:
    page = text_of(site / "configuration" / "index.html")
    for _, heading, model in settings.models():
        assert heading in page
        for name in model.model_fields:
            assert name in page


@pytest.mark.slow
def test_every_command_and_option_is_on_the_page_of_commands(site: Path) -> None:
    page = text_of(site / "cli" / "index.html")
    for name, command in commands.walk():
        assert name in page
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or all(option in page for option in parameter.opts)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "package"),
    [("trunnion", "trunnion"), ("data", "trunnion_ray.data"), ("serve", "trunnion_ray.serve")],
)
def test_every_public_name_is_in_the_reference(site: Path, page: str, package: str) -> None:
    html = (site / "reference" / page / "index.html").read_text(encoding="utf-8")
    names = __import__(package, fromlist=["__all__"]).__all__
    missing = [name for name in names if re.search(rf'id="?{package}(\.run)?\.{name}\b', html) is None]
    assert missing == []


@pytest.mark.parametrize("heading", [f"{part}: {heading}" for part, heading, _ in settings.models()])
def test_every_setting_is_described(heading: str) -> None:
    models = {f"{part}: {name}": model for part, name, model in settings.models()}
    for name, field in models[heading].model_fields.items():
        assert (field.description or "").strip(), f"{heading}.{name} has no description"


def test_every_plugin_of_ours_is_among_the_settings() -> None:
    told = {heading for _, heading, _ in settings.models()}
    ours = {r.name for r in trunnion.Registry(trunnion.PluginPolicy()).plugins() if r.distribution == "trunnion"}
    assert ours <= told


def test_every_variable_of_the_environment_is_told() -> None:
    read = {name for path in SOURCES for name in re.findall(r"\"(TRUNNION_[A-Z_]+)\"", path.read_text("utf-8"))}
    read.discard("TRUNNION_KIT")  # how the kit talks to a process of its own
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(TRUNNION_\w+)` \|", page, flags=re.MULTILINE)) == read


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_generated_parts_are_those_of_the_code(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert blocks.rewritten(text) == text, "run `make docs`, which rewrites the generated parts"
