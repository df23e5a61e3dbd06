"""Assemble the suite that a plugin of request hooks passes."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest

from trunnion.engine import EngineInfo
from trunnion.errors import Cancelled, TrunnionError
from trunnion.events import Usage
from trunnion.hooks import HookChain, RequestHooks, RequestSummary
from trunnion.plugin import HooksPlugin, load_factory
from trunnion.registry import get_registry, validate_config
from trunnion.requests import GenerateRequest, MessagesPrompt, TextPrompt, TokensPrompt

from .registration import RegistrationChecks

_METHODS = tuple(name for name in vars(RequestHooks) if not name.startswith("_"))
_INFO = EngineInfo(engine="kit", model="kit")


class HooksSuite(RegistrationChecks, standard=True):
    """Hold request hooks to the contract.

    A subclass names the plugin, and gives a class-scoped fixture ``requests`` with requests that the hooks let
    through, if those of the kit are not among them.

    Attributes:
        plugin: The hooks' name.
        config: Their settings.
    """

    kind: ClassVar[str] = "hooks"

    @pytest.fixture(scope="class")
    @classmethod
    def requests(cls) -> list[GenerateRequest]:
        """Return requests that are let through."""
        return [
            GenerateRequest(prompt=MessagesPrompt(messages=({"role": "user", "content": "Hello"},)), tenant="kit"),
            GenerateRequest(prompt=TextPrompt(text="Hello"), tenant="kit"),
        ]

    def _build(self) -> Any:
        plugin: HooksPlugin = next(hook for hook in get_registry().hooks() if hook.name == self.plugin)
        config = validate_config(plugin.config, self.config, where=f"hooks {self.plugin!r}")
        return load_factory(plugin.factory)(config)

    def test_methods_are_those_there_are(self) -> None:
        """At least one method of RequestHooks is there, and none that only looks like one."""
        made = self._build()
        assert [name for name in _METHODS if hasattr(made, name)], f"give it one of {', '.join(_METHODS)}"
        strays = [
            name
            for name, value in inspect.getmembers(type(made), inspect.isfunction)
            if name.startswith(("before_", "after_", "on_")) and name not in _METHODS and value
        ]
        assert strays == [], f"nobody calls {strays[0]}" if strays else ""

    def test_requests_go_through(self, requests: list[GenerateRequest]) -> None:
        """``before_request`` gives None or a request of the same identity, and leaves the one it got alone."""
        chain = HookChain([self._build()])
        for request in requests:
            state = pickle.dumps(request)
            result = asyncio.run(chain.before(request))
            assert isinstance(result, GenerateRequest)
            assert result.request_id == request.request_id
            assert pickle.dumps(request) == state

    def test_any_prompt_is_admitted_or_refused_in_our_words(self) -> None:
        """Odd requests are let through or refused by an error of the tree; nothing else comes out."""
        chain = HookChain([self._build()])
        for request in _odd():
            try:
                asyncio.run(chain.before(request))
            except TrunnionError as error:
                assert error.http_status < 500, f"a hook failed on {request.prompt}: {error}"  # noqa: PT017

    def test_requests_at_once_do_not_mix(self, requests: list[GenerateRequest]) -> None:
        """Requests admitted at once are admitted as they are alone."""
        chain = HookChain([self._build()])

        async def together() -> list[GenerateRequest]:
            return await asyncio.gather(*(chain.before(request) for request in requests * 4))

        alone = [asyncio.run(chain.before(request)) for request in requests] * 4
        assert asyncio.run(together()) == alone

    def test_observers_take_every_ending(self, requests: list[GenerateRequest], caplog: Any) -> None:
        """Observers are told of good ends, failures and requests given up, and raise nothing."""
        chain = HookChain([self._build()])
        usage = Usage(prompt_tokens=3, completion_tokens=5)

        async def observe() -> None:
            await chain.engine_started(_INFO)
            for request in requests:
                await chain.after(RequestSummary(request=request, usage=usage, seconds=0.1))
                for error in (Cancelled("given up"), TrunnionError("it broke")):
                    await chain.after(RequestSummary(request=request, usage=None, seconds=0.1, error=error))
            await chain.engine_stopped(_INFO)

        asyncio.run(observe())
        assert [record.getMessage() for record in caplog.records if record.name == "trunnion.hooks"] == []


def _odd() -> Sequence[GenerateRequest]:
    message: Any = {"role": "user", "content": None}
    parts: Any = {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url"}]}
    return [
        GenerateRequest(prompt=MessagesPrompt(messages=())),
        GenerateRequest(prompt=MessagesPrompt(messages=(message, parts))),
        GenerateRequest(prompt=TextPrompt(text="")),
        GenerateRequest(prompt=TokensPrompt(token_ids=(1, 2, 3)), session="", tenant=""),
    ]
