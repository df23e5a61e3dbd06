"""Run a suite on an installed plugin: pytest is given this file, and the environment says which plugin."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from trunnion.engine import EngineInfo, TokenizerRef
from trunnion.events import ChoiceDelta, GenerateEvent, Usage
from trunnion.registry import get_registry
from trunnion.requests import GenerateRequest, MessagesPrompt, SamplingParams, TextPrompt
from trunnion.spec import EngineSpec

from .check import VARIABLE, check_settings
from .engine_suite import EngineSuite
from .hooks_suite import HooksSuite
from .router_suite import RouterSuite
from .stage_suite import StageSuite, Stream

_ASKED: dict[str, Any] = json.loads(os.environ.get(VARIABLE, "{}"))
_TEXTS = ("Hello, who are you?", "What is the capital of France?")
_ANSWERS = ("One two three STOP four.", "<think>It is easy.</think>Paris.", "Write to me@example.com.")


def _spec(model: str | None, config: dict[str, Any]) -> EngineSpec:
    name = _ASKED["plugin"]
    settings = check_settings(get_registry(), name, model, config)
    return get_registry().engine_spec(name, model, settings, adapters=_ASKED["adapters"])


def _engine_suite() -> type[EngineSuite]:
    class TestPlugin(EngineSuite):
        plugin = _ASKED["plugin"]
        prompt = _ASKED["prompt"] or EngineSuite.prompt
        tokenizer = _ASKED["tokenizer"]
        adapters = _ASKED["adapters"]
        lenient = True

        @pytest.fixture(scope="class")
        @classmethod
        def engine(cls) -> EngineSpec:
            return _spec(_ASKED["model"], _ASKED["config"])

        @pytest.fixture(scope="class")
        @classmethod
        def narrow(cls) -> EngineSpec | None:
            narrow = _ASKED["narrow"]
            return _spec(_ASKED["model"], {**_ASKED["config"], **narrow}) if narrow else None

        @pytest.fixture(scope="class")
        @classmethod
        def embedding(cls) -> EngineSpec | None:
            if not _ASKED["embedding"] and not _ASKED["embedding_model"]:
                return None
            return get_registry().engine_spec(
                _ASKED["plugin"], _ASKED["embedding_model"] or _ASKED["model"], _ASKED["embedding"]
            )

    return TestPlugin


def _stage_suite() -> type[StageSuite]:
    model, tokenizer = _ASKED["model"] or "kit", _ASKED["tokenizer"] or _ASKED["model"]

    class TestPlugin(StageSuite):
        plugin = _ASKED["plugin"]
        config = _ASKED["config"]
        info = EngineInfo(
            engine="kit", model=model, tokenizer=None if tokenizer is None else TokenizerRef(path=tokenizer)
        )
        cuts = not tokenizer
        lenient = True

        @pytest.fixture(scope="class")
        @classmethod
        def requests(cls) -> list[GenerateRequest]:
            if get_registry().stage(cls.plugin).consumes == "messages":
                conversations = [({"role": "user", "content": text},) for text in _TEXTS]
                return [GenerateRequest(prompt=MessagesPrompt(messages=one)) for one in conversations]  # type: ignore[arg-type]
            return [GenerateRequest(prompt=TextPrompt(text=text)) for text in _TEXTS]

        @pytest.fixture(scope="class")
        @classmethod
        def streams(cls) -> list[Stream]:
            request = GenerateRequest(prompt=TextPrompt(text=_TEXTS[0]), sampling=SamplingParams(stop=("STOP",)))
            usage = Usage(prompt_tokens=5, completion_tokens=5)
            deltas = [ChoiceDelta(text=answer, finish_reason="stop") for answer in _ANSWERS]
            return [(request, [GenerateEvent(choices=(delta,), usage=usage)]) for delta in deltas]

    return TestPlugin


def _router_suite() -> type[RouterSuite]:
    class TestPlugin(RouterSuite):
        plugin = _ASKED["plugin"]
        config = _ASKED["config"]

    return TestPlugin


def _hooks_suite() -> type[HooksSuite]:
    class TestPlugin(HooksSuite):
        plugin = _ASKED["plugin"]
        config = _ASKED["config"]

    return TestPlugin


if _ASKED:
    TestPlugin = {
        "engine": _engine_suite,
        "stage": _stage_suite,
        "router": _router_suite,
        "hooks": _hooks_suite,
    }[_ASKED["kind"]]()
