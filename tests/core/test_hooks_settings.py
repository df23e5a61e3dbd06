"""Hooks get their settings from the pipeline's spec, and may bring stages along."""

import fake_engines as fake
import pytest
from fake_engines import FakeEngine, made, request

import trunnion as t
from trunnion.errors import ConfigError, InternalError, PluginNotFound, PluginNotInstalled


class Limit(t.PluginConfig):
    limit: int
    words: tuple[str, ...] = ()


def registry(*hooks, stages=(), engine=None):
    engine = engine or FakeEngine()
    build = fake.factory(lambda _model, _config: engine)
    entry = fake.FakeEntryPoint(
        "x",
        trunnion_hooks=list(hooks),
        trunnion_stages=list(stages),
        trunnion_engines=[t.EnginePlugin(name="fake", factory=build, needs_model=False)],
    )
    return t.Registry(t.PluginPolicy(), entry_points=(entry,))


def limits(**fields):
    seen = []
    hook = t.HooksPlugin(name="limits", factory=fake.factory(seen.append), config=Limit, **fields)
    return hook, seen


def spec(**hooks):
    return t.PipelineSpec(engine=t.EngineSpec(engine="fake"), hooks=hooks)


async def test_settings_reach_the_hooks():
    hook, seen = limits()
    async with t.open_pipeline(spec(limits={"limit": 3, "words": ["a"]}), registry=registry(hook)):
        assert seen == [Limit(limit=3, words=("a",))]


@pytest.mark.parametrize(
    ("hooks", "error", "words", "param"),
    [
        ({}, ConfigError, "hooks 'limits': setting 'limit'", "limit"),
        ({"limits": {"limit": "many"}}, ConfigError, "hooks 'limits': setting 'limit'", "limit"),
        ({"limits": {"limit": 1, "word": []}}, ConfigError, "did you mean 'words'", "word"),
        ({"limit": {"limit": 1}}, PluginNotFound, "no hooks plugin is called 'limit'; did you mean 'limits'", None),
    ],
)
async def test_wrong_settings_end_the_start_before_the_engine(hooks, error, words, param):
    engine = FakeEngine()
    hook, seen = limits()
    with pytest.raises(error, match=words) as caught:
        async with t.open_pipeline(spec(**hooks), registry=registry(hook, engine=engine)):
            pass
    assert caught.value.param == param
    assert (seen, "start" in engine.log) == ([], False)


async def test_hooks_that_cannot_be_used_are_refused_where_they_are_set():
    library = t.LibraryRequirement(module="no_such_lib", distributions=())
    hook, _ = limits(requires=(library,))
    with pytest.raises(PluginNotInstalled, match="no_such_lib"):
        registry(hook).check_hooks({"limits": {"limit": 1}})


def test_settings_are_a_copy_and_json():
    settings = {"limit": 1, "words": ("a",)}
    made_of = spec(limits=settings)
    settings["limit"] = 2
    assert made_of.hooks == {"limits": {"limit": 1, "words": ["a"]}}
    with pytest.raises(ConfigError, match=r"hooks\.limits"):
        spec(limits={"limit": object()})


class Tag:
    """Note what the prompt was for the stage that comes after."""

    def __init__(self, _config=None) -> None: ...

    def before_request(self, req):
        return req.with_note("tag", "hooked")


class Reader:
    """Append the notes to the text."""

    def __init__(self, log) -> None:
        self.log = log

    def open(self, req):
        self.log.append(req.notes)
        return None if req.notes is None else Append(str(req.notes.get("tag")))


class Append:
    done = False

    def __init__(self, text) -> None:
        self.text = text

    def feed(self, event):
        return (event,)

    def finish(self):
        return (t.GenerateEvent(choices=(t.ChoiceDelta(text=self.text),)),)


def stage(name, built, **fields):
    return t.StagePlugin(name=name, factory=fake.factory(lambda _context, _config: built), **fields)


TAG = {"name": "tag", "stages": ("reader",)}


def tagging(log, **fields):
    hook = t.HooksPlugin(factory=fake.factory(Tag), **TAG)
    return hook, stage("reader", Reader(log), shape="stream", **fields)


@pytest.mark.parametrize("automatic", [False, True])
@pytest.mark.parametrize("delivery", ["delta", "final"])
async def test_a_stage_joins_with_its_hooks_and_reads_their_notes(automatic, delivery):
    log, engine = [], FakeEngine()
    hook, reader = tagging(log, automatic=automatic)
    async with t.open_pipeline(spec(), registry=registry(hook, stages=[reader], engine=engine)) as pipeline:
        assert pipeline.plan(request()).stream_stages == ("reader",)
        assert (await pipeline.complete(request(delivery=delivery))).text == "hello worldhooked"
        assert "reader" in pipeline.explain()
    assert log[-1] == {"tag": "hooked"}
    assert engine.requests[0].notes is None


async def test_a_user_still_places_a_stage_that_joined():
    hook, reader = tagging([], automatic=False)
    other = stage("other", Reader([]), shape="stream", automatic=False, order=90)
    placed = (t.StageSpec(stage="other"), t.StageSpec(stage="reader", position="last"))
    wanted = t.PipelineSpec(engine=t.EngineSpec(engine="fake"), stages=placed)
    async with t.open_pipeline(wanted, registry=registry(hook, stages=[reader, other])) as pipeline:
        assert pipeline.plan(request()).stream_stages == ("other", "reader")


async def test_request_stages_leave_notes_as_well_and_no_engine_sees_them():
    log, engine = [], FakeEngine()

    class Writer:
        def process(self, items):
            return [item.with_note("tag", "staged") for item in items]

    writes = stage("writer", Writer(), automatic=False)
    _, reader = tagging(log, automatic=False)
    hook = t.HooksPlugin(name="h", factory=fake.factory(lambda _c: made), stages=("writer", "reader"))
    async with t.open_pipeline(spec(), registry=registry(hook, stages=[writes, reader], engine=engine)) as pipeline:
        assert pipeline.plan(request()).request_stages == ("writer",)
        asked = request(notes={"mine": 1})
        assert (await pipeline.complete(asked)).text == "hello worldstaged"
    assert log[-1] == {"mine": 1, "tag": "staged"}
    assert engine.requests[0].notes is None
    assert asked.notes == {"mine": 1}


async def test_notes_reach_no_engine_where_no_stage_runs():
    engine = FakeEngine()
    async with fake.opened(engine) as pipeline:
        await pipeline.complete(request(notes={"tag": "x"}))
    assert engine.requests[0].notes is None


def test_notes_are_shown_nowhere():
    assert "secret" not in repr(request(notes={"tag": "secret"}))


async def test_hooks_whose_stage_is_not_there_stop_the_pipeline():
    engine = FakeEngine()
    hook = t.HooksPlugin(factory=fake.factory(Tag), **TAG)
    with pytest.raises(PluginNotFound, match="hooks 'tag' rely on a stage: no stage plugin is called 'reader'"):
        async with t.open_pipeline(spec(), registry=registry(hook, engine=engine)):
            pass
    assert "start" not in engine.log


async def test_a_broken_stage_of_a_hook_fails_the_start_by_name():
    hook = t.HooksPlugin(factory=fake.factory(Tag), **TAG)
    broken = t.StagePlugin(name="reader", factory="no_such_module:x", shape="stream")
    engine = FakeEngine()
    with pytest.raises(t.TrunnionError, match="stage 'reader' cannot be imported") as caught:
        async with t.open_pipeline(spec(), registry=registry(hook, stages=[broken], engine=engine)):
            pass
    assert not isinstance(caught.value, InternalError)
    assert engine.log[-1] == "stop"
