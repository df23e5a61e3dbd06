"""A plugin written for plugin API 1.0 works as long as the major version is 1, and nothing it could use has gone."""

import dataclasses
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import sys
from pathlib import Path

import pytest

import trunnion as t
from trunnion.errors import AdapterNotFound, PermissionDenied, PluginIncompatible

FROZEN = Path(__file__).parent / "frozen_plugin_1_0"
SURFACE = json.loads((Path(__file__).parent / "frozen_api_1_0.json").read_text(encoding="utf-8"))
DIGEST = "fb72070dcbce6a87367bbf3ce9d974ca788a2fd93109249ddb6b17b7d4ccd26d"
HELLO = t.MessagesPrompt(messages=({"role": "user", "content": "hello frozen world"},))
STAGES = (t.StageSpec(stage="frozen_flatten"), t.StageSpec(stage="frozen_shout"))


@pytest.fixture
def registry(monkeypatch):
    """Load the frozen distribution and Trunnion's own, as installed."""
    monkeypatch.syspath_prepend(str(FROZEN))
    importlib.invalidate_caches()
    yield t.Registry(t.PluginPolicy())
    for name in [name for name in sys.modules if name.partition(".")[0] == "trunnion_frozen"]:
        del sys.modules[name]


def test_it_was_never_edited():
    files = sorted(path for path in FROZEN.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    assert digest == DIGEST, "what a third party published for 1.0 cannot be edited; make the core take it"


def test_every_value_is_loaded_without_a_word_of_deprecation(registry):
    records = [record for record in registry.plugins() if record.distribution == "trunnion-frozen"]
    assert {(record.kind, record.name) for record in records} == {
        ("engine", "frozen"), ("hooks", "frozen_hooks"), ("router", "frozen_router"),
        ("stage", "frozen_flatten"), ("stage", "frozen_shout"),
    }  # fmt: skip
    assert {(record.state, record.deprecated) for record in records} == {(t.PluginState.OK, ())}
    assert {record.plugin.api_version for record in records} == {(1, 0)}


async def test_it_answers_through_the_pipeline(registry):
    spec = registry.engine_spec("frozen", "m", {"prefix": "I say: "})
    assert registry.resources(spec).bundles[0].cpu == 2
    log = importlib.import_module("trunnion_frozen.hooks").LOG
    async with t.open_pipeline(t.PipelineSpec(engine=spec, stages=STAGES), registry=registry) as pipeline:
        request = t.GenerateRequest(prompt=HELLO, sampling=t.SamplingParams(max_tokens=4))
        answer = await t.collect(pipeline.generate(request))
        assert answer.choices[0].text == "I SAY: HELLO FROZEN"
        assert answer.usage == t.Usage(prompt_tokens=4, completion_tokens=4)
        with pytest.raises(PermissionDenied, match="nobody"):
            await t.collect(pipeline.generate(request.with_(tenant="nobody")))
        report = pipeline.load()
        assert report is not None
        assert (report.running, report.capacity) == (0, 4)
        assert (await pipeline.engine.embed([t.TextPrompt(text="four")]))[0].vector == (4.0,)
        await pipeline.engine.load_adapter(t.AdapterRef(name="a", path="/a"))
        with pytest.raises(AdapterNotFound):
            await pipeline.engine.unload_adapter("b")
    assert log == [
        ("started", "m"), ("answered", 3, 4), ("failed", "permission_denied"), ("stopped", "frozen"),
    ]  # fmt: skip


def test_its_router_ranks(registry):
    candidates = [t.Candidate(id="a", in_flight=2), t.Candidate(id="b")]
    ranking = registry.build_router("frozen_router").rank(t.GenerateRequest(prompt=HELLO), candidates)
    assert ranking.first is not None
    assert ranking.first.id == "b"


@pytest.mark.parametrize(("here", "works"), [((1, 0), True), ((1, 7), True), ((2, 0), False), ((0, 9), False)])
def test_it_works_under_every_minor_of_its_major(monkeypatch, here, works):
    monkeypatch.setattr("trunnion._versions.API_VERSION", here)
    monkeypatch.syspath_prepend(str(FROZEN))
    [dist] = importlib.metadata.distributions(path=[str(FROZEN)])
    found = t.Registry(t.PluginPolicy(), entry_points=tuple(dist.entry_points))
    if works:
        assert found.engine("frozen").name == "frozen"
        return
    with pytest.raises(PluginIncompatible) as caught:
        found.engine("frozen")
    advice = "upgrade the plugin" if here > (1, 0) else "upgrade trunnion"
    assert f"written for plugin API 1.0, this is {here[0]}.{here[1]}; {advice}" in caught.value.message


def find(path):
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("path", SURFACE["dataclasses"])
def test_no_field_of_1_0_has_gone_and_every_new_one_has_a_default(path):
    """A value made with what 1.0 had can still be made, in the same words."""
    now = {field.name: field for field in dataclasses.fields(find(path))}
    before = SURFACE["dataclasses"][path]
    assert set(before) <= set(now)
    for name, field in now.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        assert not required or before.get(name) == "required", f"{path}.{name} must have a default"


@pytest.mark.parametrize("path", SURFACE["methods"])
def test_no_method_of_1_0_has_gone_and_no_protocol_asks_for_more(path):
    owner, _, method = path.partition(".") if ":" not in path else path.rpartition(".")
    before = SURFACE["methods"][path]
    now = inspect.signature(getattr(find(owner), method)).parameters
    assert set(before) <= set(now)
    for name, parameter in now.items():
        assert name in before or parameter.default is not parameter.empty, f"{path} needs {name!r}, which 1.0 had not"


@pytest.mark.parametrize("path", SURFACE["protocols"])
def test_a_protocol_asks_for_the_methods_it_asked_for(path):
    protocol = find(path)
    now = {name for name, value in vars(protocol).items() if inspect.isfunction(value) and not name.startswith("_")}
    if path == "trunnion.hooks:RequestHooks":  # all optional: it may grow
        assert set(SURFACE["protocols"][path]) <= now
    else:
        assert set(SURFACE["protocols"][path]) == now


@pytest.mark.parametrize("path", SURFACE["names"])
def test_no_public_name_of_1_0_has_gone(path):
    assert find(path) is not None


@pytest.mark.parametrize("group", SURFACE["values"])
def test_no_feature_protocol_or_error_of_1_0_has_gone(group):
    assert set(SURFACE["values"][group]) <= set(find(group))
