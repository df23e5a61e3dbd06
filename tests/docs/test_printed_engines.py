"""The engines that the documentation prints take the messages that clients of OpenAI's API send."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from doc_pages import ROOT, blocks, write

import trunnion as t
from trunnion.errors import InvalidArgument

PAGE = (ROOT / "docs" / "write-a-plugin.md").read_text(encoding="utf-8")
PARTS = [{"type": "text", "text": "tell me of"}, {"type": "text", "text": "the old"}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[t.Registry]:
    """Load the plugin of the tutorial, and nothing else."""
    for block in blocks(PAGE):
        if block.title:
            write(block, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = project["entry-points"]["trunnion.plugins"].items()
    found = tuple(importlib.metadata.EntryPoint(name, value, "trunnion.plugins") for name, value in points)
    yield t.Registry(t.PluginPolicy(block=frozenset({"budget"})), entry_points=found)
    for name in [name for name in sys.modules if name.partition(".")[0] == "trunnion_bigram"]:
        del sys.modules[name]


async def answer(registry: t.Registry, folder: Path, *messages: Mapping[str, object]) -> str:
    request = t.GenerateRequest(
        prompt=t.MessagesPrompt(messages=messages),  # type: ignore[arg-type]
        sampling=t.SamplingParams(temperature=0.0, max_tokens=4),
    )
    spec = registry.engine_spec("bigram", str(folder / "sea.txt"))
    async with t.open_pipeline(spec, registry=registry) as pipeline:
        return (await pipeline.complete(request)).text


async def test_content_may_be_text_or_a_list_of_parts(registry: t.Registry, tmp_path: Path) -> None:
    of_text = await answer(registry, tmp_path, {"role": "user", "content": "tell me of the old"})
    assert of_text == "fishermen carry heavy nets"
    assert await answer(registry, tmp_path, {"role": "user", "content": PARTS}) == of_text


@pytest.mark.parametrize("last", [{"content": None, "tool_calls": [CALL]}, {"tool_calls": [CALL]}, {"content": []}])
async def test_a_message_without_text_says_nothing(
    last: dict[str, object], registry: t.Registry, tmp_path: Path
) -> None:
    first = {"role": "user", "content": PARTS}
    assert await answer(registry, tmp_path, first, {"role": "assistant", **last}) == "fishermen carry heavy nets"
    with pytest.raises(InvalidArgument, match="at least one word of text"):
        await answer(registry, tmp_path, {"role": "assistant", **last})


def test_every_feature_is_classified(registry: t.Registry) -> None:
    assert set(registry.engine("bigram").capabilities.features) == set(t.FEATURES)
