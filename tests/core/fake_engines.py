"""Fakes for the core's tests: scripted engines, hooks and stages behind a registry of their own."""

from __future__ import annotations

import asyncio
import itertools
from types import SimpleNamespace

import trunnion as t

made = SimpleNamespace()
_count = itertools.count()
CAPABILITIES = t.Capabilities.of(
    yes=("sampling.*",), no=("sampling.stop",), unknown=("priority",), prompts=("token_ids", "text")
)
TOKENS = t.TokensPrompt(token_ids=(1, 2, 3))


def factory(function) -> str:
    """Give an object a place that a factory string can name."""
    name = f"x{next(_count)}"
    setattr(made, name, function)
    return f"{__name__}:made.{name}"


class FakeEntryPoint:
    """Stand for an entry point whose module is made here."""

    dist = None
    value = "made_here"

    def __init__(self, name, **hooks) -> None:
        self.name = name
        namespace = SimpleNamespace(__name__=name)
        for hook, values in hooks.items():
            setattr(namespace, hook, _hook(hook, values))
        self._namespace = _Module(namespace)

    def load(self):
        return self._namespace


class _Module:
    def __init__(self, namespace) -> None:
        self.__dict__.update(vars(namespace))


def _hook(name, values):
    def function():
        return list(values)

    function.__name__ = name
    return t.hookimpl(function)


def event(text="", *, index=0, ids=None, finish=None, usage=None, **more):
    """Make an event of one delta; ``usage`` is the number of completion tokens."""
    ids = tuple(range(len(text.split()))) if ids is None else ids
    return t.GenerateEvent(
        choices=(t.ChoiceDelta(index=index, text=text, token_ids=ids, finish_reason=finish, **more),),
        usage=None if usage is None else t.Usage(prompt_tokens=3, completion_tokens=usage),
    )


HELLO = (event("hello "), event("world", finish="stop", usage=2))


class FakeEngine:
    """Play a script: events are yielded, numbers slept, exceptions raised, "hang" waits for ever."""

    def __init__(self, script=HELLO, *, start=None, stop=None, **info) -> None:
        self.script = script
        self.info = t.EngineInfo(**{"engine": "fake", "model": "m", "capabilities": CAPABILITIES, **info})
        self.start_failure, self.stop_failure = start, stop
        self.requests: list[t.GenerateRequest] = []
        self.log: list[str] = []
        self.running = 0

    async def start(self):
        self.log.append("start")
        if self.start_failure is not None:
            raise self.start_failure
        return self.info

    async def generate(self, request):
        self.requests.append(request)
        self.running += 1
        try:
            for step in self.script(request) if callable(self.script) else self.script:
                if isinstance(step, BaseException):
                    raise step
                if isinstance(step, float | int):
                    await asyncio.sleep(step)
                elif step == "hang":
                    await asyncio.Event().wait()
                else:
                    yield step
        finally:
            self.running -= 1
            self.log.append("closed")

    async def stop(self, *, drain=0.0):
        self.log.append("stop")
        if self.stop_failure is not None:
            raise self.stop_failure


def registry(engine=None, *, hooks=(), stages=()):
    """Build a registry that holds this engine as "fake"; hooks and stages are pairs of plugin fields and object."""
    engines = []
    if engine is not None:
        build = factory(lambda _model, _config: engine)
        engines = [t.EnginePlugin(name="fake", factory=build, needs_model=False, capabilities=engine.info.capabilities)]
    hook_plugins = [t.HooksPlugin(factory=factory(lambda _c, h=hook: h), **fields) for fields, hook in hooks]
    stage_plugins = [t.StagePlugin(factory=factory(lambda _x, _c, s=stage: s), **fields) for fields, stage in stages]
    entry = FakeEntryPoint(
        "fakes", trunnion_engines=engines, trunnion_hooks=hook_plugins, trunnion_stages=stage_plugins
    )
    return t.Registry(t.PluginPolicy(), entry_points=(entry,))


def opened(engine, *, listed=(), **parts):
    """Open a pipeline over a fake engine."""
    spec = t.PipelineSpec(engine=t.EngineSpec(engine="fake"), stages=tuple(listed))
    return t.open_pipeline(spec, registry=registry(engine, **parts))


def request(**fields):
    return t.GenerateRequest(**{"prompt": TOKENS, **fields})


async def texts(events):
    return [choice.text async for e in events for choice in e.choices]
