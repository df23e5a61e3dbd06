"""References in a pipeline: which engines get paths, how a start reports its stages, and how it is given up."""

import asyncio
import logging
from pathlib import Path

import pytest
import source_lab
from source_lab import model_files, tarball

import trunnion as t
from trunnion.errors import (
    Cancelled,
    ConfigError,
    ModelNotFound,
    PluginConflict,
    PluginNotFound,
)
from trunnion.plugin import SourcePlugin
from trunnion.sources import display_name

FILES = model_files()
NAMES = "config.json model.safetensors tokenizer"
REQUEST = t.GenerateRequest(prompt=t.TextPrompt(text="which files?"))


@pytest.fixture
def opened(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNNION_CACHE", str(tmp_path / "cache"))

    def run(model, engine="files", **more):
        registry = source_lab.registry()
        config = more.pop("config", None)
        return t.open_pipeline(registry.engine_spec(engine, model, config), registry=registry, **more)

    return run


@pytest.fixture
def reference(web):
    web.files["/model.tar.gz"] = tarball(FILES)
    return f"{web.url}/model.tar.gz"


async def test_an_engine_gets_a_path(opened, reference, caplog):
    reports = []
    with caplog.at_level(logging.INFO, "trunnion.pipeline"):
        async with opened(reference, on_progress=reports.append) as pipeline:
            assert (await pipeline.complete(REQUEST)).text == NAMES
            assert Path(pipeline.info.model).is_dir()
            stages = {stage.name: stage for stage in pipeline.startup.stages}
            assert list(stages) == ["fetch model", "import engine", "start engine", "stages"]
            assert [part.name for part in stages["start engine"].parts] == ["read files"]
            assert pipeline.startup.seconds == sum(stage.seconds for stage in stages.values())
            assert f"fetched from {reference}" in pipeline.explain()
    assert {report.phase for report in reports} >= {"fetching", "unpacking"}
    assert len([record for record in caplog.records if "started in" in record.message]) == 1


async def test_before_the_start_there_is_neither_engine_nor_startup(reference):
    registry = source_lab.registry()
    pipeline = t.Pipeline(registry.engine_spec("files", reference), registry=registry)
    with pytest.raises(ConfigError, match="built by start"):
        _ = pipeline.engine
    with pytest.raises(ConfigError, match="not been started"):
        _ = pipeline.startup
    await pipeline.stop()


async def test_a_path_is_given_as_it_is(opened, tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    for model in (str(tmp_path / "m"), "./m", "m"):
        async with opened(model) as pipeline:
            assert pipeline.info.model == model
            assert [stage.name for stage in pipeline.startup.stages] == ["import engine", "start engine", "stages"]
    async with opened(f"file://{tmp_path}/m") as pipeline:
        assert pipeline.info.model == str(tmp_path / "m")


@pytest.mark.parametrize("engine", ["names", "far"])
async def test_a_mere_name_stays_one(opened, engine):
    async with opened("s3://nowhere/at/all", engine=engine) as pipeline:
        assert pipeline.info.model == "s3://nowhere/at/all"


async def test_engines_on_several_nodes_fetch_by_the_hubs_name_themselves(opened, reference):
    async with opened("org/name", engine="spread") as pipeline:
        assert pipeline.info.model == "org/name"
    async with opened(reference, engine="spread") as pipeline:
        assert Path(pipeline.info.model).is_dir()


async def test_a_bare_name_goes_to_the_engine_where_no_source_takes_it(monkeypatch):
    entry_points = tuple(source_lab.importlib.metadata.EntryPoint(n, n, "trunnion.plugins") for n in ("source_lab",))
    registry = t.Registry(t.PluginPolicy(), entry_points=entry_points)
    async with t.open_pipeline(registry.engine_spec("files", "org/name"), registry=registry) as pipeline:
        assert pipeline.info.model == "org/name"


async def test_what_no_source_fetches_is_refused(opened):
    with pytest.raises(PluginNotFound, match=r"no source fetches ftp://; there are: .*s3://"):
        async with opened("ftp://host/model"):
            pass


async def test_a_revision_among_the_settings_goes_to_the_source(opened, reference):
    with pytest.raises(ConfigError, match="revision 'v2' is for models on the Hub"):
        async with opened(reference, config={"revision": "v2"}):
            pass


async def test_adapters_given_by_uri_become_paths(opened, web, tmp_path):
    web.files["/model.tar.gz"] = tarball({"adapter_config.json": b"{}"})
    (tmp_path / "m").mkdir()
    adapters = {"near": "./here", "hub": "org/lora", "far": f"{web.url}/model.tar.gz"}
    async with opened(str(tmp_path / "m"), config={"adapters": adapters}) as pipeline:
        near, hub, far = pipeline.info.adapters
        assert (near, hub) == ("./here", "org/lora")
        assert (Path(far) / "adapter_config.json").exists()
        assert pipeline.info.model == str(tmp_path / "m")
    async with opened("x", engine="names", config={"adapters": adapters}) as pipeline:
        assert pipeline.info.adapters == tuple(adapters.values())


async def test_cancelling_gives_the_fetch_up(opened, web, reference):
    web.files["/model.tar.gz"] = tarball(model_files(3_000_000), mode="w")
    web.pause = 0.05

    async def start():
        async with opened(reference):
            pass

    task = asyncio.ensure_future(start())
    while not web.sent["/model.tar.gz"]:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.3)
    sent = web.sent["/model.tar.gz"]
    await asyncio.sleep(0.3)
    assert web.sent["/model.tar.gz"] - sent <= 4 * 16 * 1024  # what the sockets hold, and no more


async def test_stopping_gives_the_fetch_up(web, reference, tmp_path, monkeypatch):
    monkeypatch.setenv("TRUNNION_CACHE", str(tmp_path))
    web.pause = 0.05
    web.files["/model.tar.gz"] = tarball(model_files(3_000_000), mode="w")
    registry = source_lab.registry()
    pipeline = t.Pipeline(registry.engine_spec("files", reference), registry=registry)
    task = asyncio.ensure_future(pipeline.start())
    while not web.sent["/model.tar.gz"]:
        await asyncio.sleep(0.01)
    await pipeline.stop()
    with pytest.raises(Cancelled):
        await task


def test_wrong_paths_are_told_as_such(fetch):
    for path in ("/no/such/model", "./none", "a/b/c", "file:///none"):
        with pytest.raises(ModelNotFound, match="the path does not exist"):
            fetch(path)


def test_names_for_people(tmp_path):
    assert display_name("hf://org/name@v1") == "org/name"
    assert display_name("s3://bucket/models/llama/") == "llama"
    assert display_name("https://host/x/model-7b.tar.gz?sig=1#sha256=2") == "model-7b"
    assert display_name("accounts/org/models/name") == "accounts/org/models/name"
    assert display_name(str(tmp_path / "one")) == str(tmp_path / "one")
    (tmp_path / "one").mkdir()
    assert display_name(f"{tmp_path}/one/") == "one"


def test_two_sources_of_one_scheme_are_a_conflict(tmp_path, monkeypatch):
    (tmp_path / "other_source.py").write_text(
        "from trunnion import SourcePlugin, hookimpl\n\n@hookimpl\ndef trunnion_sources():\n"
        "    return [SourcePlugin(name='other', schemes=('hf', 'own'), factory='other_source:X')]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = source_lab.registry("other_source")
    with pytest.raises(PluginConflict, match=r"several sources claim hf://: .*hub.*other|.*other.*hub"):
        registry.source_for("hf")
    assert registry.source_for("own").name == "other"


@pytest.mark.parametrize("schemes", [(), ("S3",), ("",)])
def test_schemes_are_checked_where_they_are_declared(schemes):
    with pytest.raises(ValueError, match="schemes must be names in lower case"):
        SourcePlugin(name="x", factory="a:b", schemes=schemes)


def test_startup_in_words():
    part = t.StartupStage(name="weights", seconds=3.04)
    stages = (
        t.StartupStage(name="fetch model", seconds=0.01),
        t.StartupStage(name="start engine", seconds=4.5, parts=(part,)),
    )
    assert str(t.Startup(stages=stages)) == "started in 4.5 s: start engine 4.5 s (weights 3.0 s)"
