import asyncio
import logging
import time
from contextlib import aclosing

import fake_engines as fake
import pytest
from fake_engines import FakeEngine, event, opened, request

import trunnion as t
from trunnion import hooks as hooks_module
from trunnion.errors import Cancelled, ConfigError, DeadlineExceeded, InternalError, Overloaded, PermissionDenied
from trunnion.hooks import HookChain


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch):
    """Begin as a process does in which no hook has failed yet."""
    monkeypatch.setattr(hooks_module, "_told", set())


class Spy:
    """Record what it is told, in one log shared by several."""

    def __init__(self, name, log, *, before=None, fails=False) -> None:
        self.name, self.log, self._before, self.fails = name, log, before, fails

    def before_request(self, req):
        self.log.append((self.name, "before", req.priority))
        return self._before(req) if self._before is not None else None

    def _seen(self, what, summary):
        self.log.append((self.name, what, type(summary.error).__name__))
        self.summary = summary
        if self.fails:
            raise RuntimeError("an observer broke")

    def after_response(self, summary):
        self._seen("after", summary)

    def on_error(self, summary):
        self._seen("error", summary)

    def on_engine_start(self, info):
        self.log.append((self.name, "start", info.engine))

    def on_engine_stop(self, info):
        self.log.append((self.name, "stop", info.engine))
        if self.fails:
            raise RuntimeError("an observer broke")


class AsyncSpy(Spy):
    async def before_request(self, req):
        await asyncio.sleep(0)
        return super().before_request(req)

    async def after_response(self, summary):
        await asyncio.sleep(0)
        super().after_response(summary)

    async def on_error(self, summary):
        await asyncio.sleep(0)
        super().on_error(summary)


def installed(*hooks, **priorities):
    return [({"name": h.name, "priority": priorities.get(h.name, 0)}, h) for h in hooks]


@pytest.mark.parametrize("cls", [Spy, AsyncSpy])
async def test_hooks_run_by_priority_then_name(cls):
    log, engine = [], FakeEngine()
    hooks = installed(*(cls(name, log) for name in "cab"), c=-1)
    async with opened(engine, hooks=hooks) as pipeline:
        assert pipeline.has_request_hooks
        await pipeline.complete(request())
    assert [(name, what) for name, what, _ in log] == [
        (name, what) for what in ("start", "before", "after", "stop") for name in "cab"
    ]
    assert {detail for _, what, detail in log if what == "after"} == {"NoneType"}


@pytest.mark.parametrize("cls", [Spy, AsyncSpy])
async def test_a_replacement_is_passed_on(cls):
    log, engine = [], FakeEngine()
    raised = cls("a", log, before=lambda req: req.with_(priority=req.priority + 5))
    last = cls("b", log)
    async with opened(engine, hooks=installed(raised, last)) as pipeline:
        await pipeline.complete(request(priority=1))
    assert [entry for entry in log if entry[1] == "before"] == [("a", "before", 1), ("b", "before", 6)]
    assert engine.requests[0].priority == 6
    assert last.summary.request.priority == 6
    assert last.summary.usage.completion_tokens == 2
    assert 0 < last.summary.seconds < 60


def refuse(error):
    def before(_):
        raise error

    return before


@pytest.mark.parametrize("cls", [Spy, AsyncSpy])
async def test_a_refusal_ends_the_request(cls):
    log, engine = [], FakeEngine()
    hooks = installed(cls("a", log, before=refuse(PermissionDenied("not you"))), cls("b", log))
    async with opened(engine, hooks=hooks) as pipeline:
        with pytest.raises(PermissionDenied):
            await pipeline.complete(request())
    assert engine.requests == []
    assert [entry[:2] for entry in log if entry[1] in ("before", "error")] == [
        ("a", "before"), ("a", "error"), ("b", "error"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "words"),
    [
        (refuse(KeyError("oops")), r"^hooks 'a': before_request raised KeyError: 'oops'; --block-plugin fakes leaves"),
        (lambda _: 7, r"^hooks 'a': before_request returned int, neither a request nor None; --block-plugin fakes"),
    ],
)
async def test_a_broken_hook_fails_the_request_by_name(before, words):
    async with opened(FakeEngine(), hooks=installed(Spy("a", [], before=before))) as pipeline:
        with pytest.raises(InternalError, match=words):
            await pipeline.complete(request())


@pytest.mark.parametrize("cls", [Spy, AsyncSpy])
async def test_an_observer_that_raises_harms_nothing(cls, caplog):
    log, engine = [], FakeEngine()
    with caplog.at_level(logging.ERROR):
        async with opened(engine, hooks=installed(cls("a", log, fails=True), cls("b", log))) as pipeline:
            assert (await pipeline.complete(request())).text == "hello world"
    assert [entry[:2] for entry in log if entry[1] == "after"] == [("a", "after"), ("b", "after")]
    assert engine.log[-1] == "stop"
    said = [record.getMessage() for record in caplog.records if record.name == "trunnion.hooks"]
    assert [text.partition(";")[0] for text in said] == [
        "hooks 'a': after_response raised RuntimeError: an observer broke",
        "hooks 'a': on_engine_stop raised RuntimeError: an observer broke",
    ]
    assert all("--block-plugin fakes" in text for text in said)


async def test_an_observer_that_always_raises_is_told_of_once_per_process(caplog):
    with caplog.at_level(logging.DEBUG, logger="trunnion.hooks"):
        for _ in range(2):
            async with opened(FakeEngine(), hooks=installed(Spy("a", [], fails=True))) as pipeline:
                for _ in range(3):
                    await pipeline.complete(request())
    said = [record for record in caplog.records if "after_response raised" in record.getMessage()]
    assert [record.levelno for record in said] == [logging.ERROR] + [logging.DEBUG] * 5
    assert [record.exc_info is not None for record in said] == [True] + [False] * 5


async def test_hooks_are_blamed_with_their_distribution(site):
    module = """
    from trunnion import HooksPlugin, hookimpl


    class Raiser:
        def before_request(self, request):
            raise KeyError("oops")


    @hookimpl
    def trunnion_hooks():
        return [HooksPlugin(name="raiser", factory="trunnion_hook:raiser")]


    def raiser(config):
        return Raiser()
    """
    site.add("trunnion-hook", {"raising": "trunnion_hook"}, trunnion_hook=module)
    registry = site.registry()
    chain = HookChain(registry.build_hooks(), registry.hooks_origins())
    with pytest.raises(InternalError) as caught:
        await chain.before(request())
    assert str(caught.value) == (
        "hooks 'raiser' (trunnion-hook 1.0): before_request raised KeyError: 'oops'; "
        "--block-plugin raising leaves it out"
    )


async def test_explain_names_the_hooks_in_force():
    hooks = installed(Spy("b", []), Spy("a", []))
    async with opened(FakeEngine(), hooks=hooks) as pipeline:
        assert "hooks in force: a, b" in pipeline.explain().splitlines()
    async with opened(FakeEngine()) as pipeline:
        assert "hooks in force" not in pipeline.explain()


async def test_errors_are_seen_with_their_class():
    log, engine = [], FakeEngine([event("a"), KeyError("x")])
    spy = Spy("a", log)
    async with opened(engine, hooks=installed(spy)) as pipeline:
        with pytest.raises(InternalError):
            await pipeline.complete(request())
        engine.script = ["hang"]
        with pytest.raises(DeadlineExceeded):
            await pipeline.complete(request(deadline=time.time() + 0.05))
    assert [entry[2] for entry in log if entry[1] == "error"] == ["InternalError", "DeadlineExceeded"]
    assert isinstance(spy.summary.error, DeadlineExceeded)


@pytest.mark.parametrize("how", ["aclose", "cancel"])
@pytest.mark.parametrize("cls", [Spy, AsyncSpy])
async def test_a_request_given_up_is_seen_as_cancelled(how, cls):
    log, engine = [], FakeEngine([event("a "), "hang"])
    spy = cls("a", log)
    async with opened(engine, hooks=installed(spy)) as pipeline:
        if how == "aclose":
            events = pipeline.generate(request())
            await anext(events)
            await events.aclose()
        else:
            task = asyncio.create_task(pipeline.complete(request()))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert engine.running == 0
    assert [entry[1:] for entry in log if entry[1] in ("after", "error")] == [("error", "Cancelled")]
    assert isinstance(spy.summary.error, Cancelled)
    assert spy.summary.usage == t.Usage(prompt_tokens=3, completion_tokens=1)


async def read_to_usage(stream):
    async with aclosing(stream) as events:
        async for e in events:
            if e.usage is not None:
                break


async def test_closing_after_the_terminal_event_is_no_cancellation():
    log = []
    async with opened(FakeEngine(), hooks=installed(Spy("a", log))) as pipeline:
        await read_to_usage(pipeline.generate(request()))
    assert [entry[1] for entry in log] == ["start", "before", "after", "stop"]


async def test_without_hooks_there_is_no_wrapper():
    class EngineOnly:
        def on_engine_start(self, info):
            self.info = info

    for hooks in ([], [({"name": "e"}, EngineOnly())]):
        async with opened(FakeEngine(), hooks=hooks) as pipeline:
            assert not pipeline.has_request_hooks
            events = pipeline.generate(request())
            assert events.__name__ == "_run"
            await events.aclose()


async def test_what_was_prepared_passes_no_hooks_twice():
    log = []
    async with opened(FakeEngine(), hooks=installed(Spy("a", log))) as pipeline:
        [prepared] = pipeline.prepare([request()])
        await pipeline.complete(prepared)
    assert [entry[1] for entry in log] == ["start", "stop"]


async def test_hooks_that_need_settings_cannot_be_built():
    class Config(t.PluginConfig):
        limit: int

    hook = t.HooksPlugin(name="h", factory="a:b", config=Config)
    engine = FakeEngine()
    entry = fake.FakeEntryPoint("x", trunnion_hooks=[hook])
    registry = t.Registry(t.PluginPolicy(), entry_points=(entry,))
    with pytest.raises(ConfigError, match="hooks 'h': setting 'limit'"):
        registry.build_hooks()
    assert engine.log == []


async def test_a_policy_that_is_not_in_force_is_warned_about(caplog):
    library = t.LibraryRequirement(module="no_such_lib", distributions=())
    hook = t.HooksPlugin(name="limits", factory="a:b", requires=(library,))
    registry = t.Registry(t.PluginPolicy(), entry_points=(fake.FakeEntryPoint("x", trunnion_hooks=[hook]),))
    with caplog.at_level(logging.WARNING):
        assert registry.build_hooks() == []
    assert "request hooks 'limits' are not in force: not installed: needs no_such_lib" in caplog.text


async def test_a_failing_start_hook_does_not_stop_the_engine():
    class Bad:
        def on_engine_start(self, info):
            raise Overloaded("no")

    async with opened(FakeEngine(), hooks=[({"name": "b"}, Bad())]) as pipeline:
        assert (await pipeline.complete(request())).text == "hello world"


async def test_stop_hooks_run_even_if_the_engine_fails_to_stop():
    log = []
    with pytest.raises(RuntimeError):
        async with opened(FakeEngine(stop=RuntimeError("x")), hooks=installed(Spy("a", log))):
            pass
    assert [entry[1] for entry in log] == ["start", "stop"]
