"""Check that whatever goes wrong is an error of the tree, and harms nobody else."""

from __future__ import annotations

import asyncio
import importlib
import pickle
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from trunnion.errors import FIELDS, InvalidArgument, NotFound, TrunnionError
from trunnion.plugin import load_factory
from trunnion.registry import get_registry
from trunnion.requests import GenerateRequest, MessagesPrompt, TextPrompt, TokensPrompt
from trunnion.spec import EngineSpec

from ._guard import Suite
from .asking import Ask, drained, whole
from .mount import Mount

_FOREIGN = (
    ValueError("v"), TypeError("t"), KeyError("k"), RuntimeError("r"), OSError(5, "o"), TimeoutError("t"),
    ConnectionResetError("c"), MemoryError("m"), AssertionError("a"), NotImplementedError("n"),
)  # fmt: skip


class FailingChecks(Suite):
    """Hold for requests that cannot be served.

    Attributes:
        map_error: Where the plugin maps its library's exceptions, as ``"module:function"``: it takes an exception and
            returns the error of the tree. Left empty, only failures that a request can provoke are checked.
    """

    map_error: ClassVar[str] = ""

    @pytest.mark.parametrize("what", ["overlong prompt", "unknown adapter", "unknown extra", "wrong token"])
    def test_wrong_requests_are_refused_in_our_words(self, ask: Ask, what: str) -> None:
        """A request that cannot be served is refused by an error of the tree that pickles whole."""
        request = _WRONG[what](ask)
        if request is None:
            return
        if what == "unknown extra" and set(ask.mount.plugin.hardware) == {"remote"}:
            return  # what an endpoint does not know is the endpoint's to refuse
        try:
            ask.mount.run(ask.mount.pipeline.complete(request))
        except (InvalidArgument, NotFound) as refusal:
            check_pickles(refusal)
            assert str(refusal)  # noqa: PT017 - an answer is right for one of them
        else:
            if what == "overlong prompt":
                pytest.fail(
                    f"a prompt of more than {ask.mount.info.context_length} tokens was answered, and context_length "
                    f"is {ask.mount.info.context_length}: raise ContextOverflow"
                )
            if what != "wrong token":  # a vocabulary may have no end
                pytest.fail(f"{what}: answered, not refused")

    def test_one_failure_touches_no_neighbour(self, ask: Ask) -> None:
        """Streams beside a request that fails are what they are alone."""
        mount = ask.mount
        fields: list[dict[str, Any]] = [{"prompt": ask.variant(number), "max_tokens": 12} for number in range(4)]
        alone = [whole(ask.events(**one)).choices[0] for one in fields]
        good = [ask.prepared(**one) for one in fields]
        bad = [wrong for make in _WRONG.values() if (wrong := make(ask)) is not None]

        async def together() -> list[object]:
            answers = (drained(mount, one) for one in good)
            failures = (mount.pipeline.complete(one) for one in bad)
            return await asyncio.gather(*answers, *failures, return_exceptions=True)

        for result, expected in zip(mount.run(together()), alone, strict=False):
            assert isinstance(result, list), f"a neighbour failed with {result!r}"
            assert whole(result).choices[0].text == expected.text

    def test_a_model_that_is_not_there(self, mount: Mount) -> None:
        """A model whose files are missing is an error of the tree when the engine starts, and no ghost is left."""
        if not (mount.plugin.needs_model and mount.plugin.model_files):
            return
        spec = EngineSpec(
            engine=mount.spec.engine,
            model="/nonexistent/model",
            config=mount.spec.config,
            plugin_version=mount.spec.plugin_version,
        )

        async def start() -> None:
            engine = get_registry().build_engine(spec)
            try:
                await engine.start()
            finally:
                await engine.stop()

        with pytest.raises(TrunnionError) as caught:
            asyncio.run(asyncio.wait_for(start(), 300))
        check_pickles(caught.value)

    def test_every_foreign_exception_is_mapped(self, mount: Mount) -> None:
        """Each exception the library defines, and Python's own, becomes an error of the tree."""
        if not self.map_error:
            return
        mapped: Callable[[BaseException], object] = load_factory(self.map_error)
        foreign = [*_FOREIGN, *library_exceptions([need.module for need in mount.plugin.requires])]
        left = [type(error).__name__ for error in foreign if not isinstance(mapped(error), TrunnionError)]
        assert left == []


def check_pickles(error: TrunnionError) -> None:
    """Hold every field of an error equal after pickle, as it crosses to a driver or a client."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    assert type(again) is type(error)
    assert {name: getattr(again, name) for name in FIELDS} == {name: getattr(error, name) for name in FIELDS}


def library_exceptions(modules: list[str]) -> list[Exception]:
    """Make one of each exception class that a library shows (in its top-level module, ``errors`` and ``exceptions``).

    Classes that cannot be made of a message alone are left out.
    """
    made: list[Exception] = []
    for name in [f"{module}{part}" for module in modules for part in ("", ".errors", ".exceptions")]:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, Exception):
                try:
                    made.append(value("made by the kit"))
                except Exception:  # noqa: BLE001, S112 - it wants arguments of its own
                    continue
    return made


def _overlong(ask: Ask) -> GenerateRequest | None:
    context = ask.mount.info.context_length
    if context is None or context > 200_000:
        return None
    request = ask.prepared()
    prompt = request.prompt
    if isinstance(prompt, TokensPrompt):
        return request.with_(prompt=TokensPrompt(token_ids=[prompt.token_ids[0]] * (context + 1)))
    words = "word, " * (context + 1)
    if isinstance(prompt, TextPrompt):
        return request.with_(prompt=TextPrompt(text=words))
    return request.with_(prompt=MessagesPrompt(messages=({"role": "user", "content": words},)))


def _unknown_adapter(ask: Ask) -> GenerateRequest | None:
    return ask.request(adapter="no-such-adapter")


def _unknown_extra(ask: Ask) -> GenerateRequest | None:
    return ask.request(extra={ask.mount.info.engine: {"no_such_field_of_the_kit": 1}})


def _wrong_token(ask: Ask) -> GenerateRequest | None:
    takes_ids = isinstance(ask.prepared().prompt, TokensPrompt)
    return ask.prepared().with_(prompt=TokensPrompt(token_ids=(10**8,))) if takes_ids else None


_WRONG: dict[str, Callable[[Ask], GenerateRequest | None]] = {
    "overlong prompt": _overlong,
    "unknown adapter": _unknown_adapter,
    "unknown extra": _unknown_extra,
    "wrong token": _wrong_token,
}
