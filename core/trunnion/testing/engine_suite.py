"""Assemble the suite that an engine plugin passes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from trunnion.registry import get_registry
from trunnion.spec import EngineSpec

from . import advice
from ._guard import FAILED, RESTART
from .asking import Ask, PromptLike
from .declaring import DeclaringChecks
from .extras import ExtraChecks
from .failing import FailingChecks
from .fields import FieldChecks
from .freeing import FreeingChecks, StartingChecks
from .mount import Mount
from .mounting import MountingChecks
from .streams import StreamChecks


class EngineSuite(
    StreamChecks,
    FreeingChecks,
    StartingChecks,
    FailingChecks,
    FieldChecks,
    ExtraChecks,
    MountingChecks,
    DeclaringChecks,
    standard=True,
):
    """Hold an engine plugin to the contract, driven by what it declares.

    A subclass names the plugin and gives a class-scoped fixture ``engine``, a classmethod that returns (or yields)
    the :class:`~trunnion.EngineSpec` to test. The kit starts it once per class on an event loop of its own.

    Attributes:
        plugin: The engine's name.
        prompt: What is asked: a user's message, a conversation or a prompt value. Its greedy answer should be some
            twenty tokens or more, and end by itself.
        tokenizer: Path or Hub name of the model's tokenizer, where the engine names none.
        adapters: LoRA adapters of the model, name to path.
        patience: Seconds after which what a test waits for counts as hanging.
    """

    kind: ClassVar[str] = "engine"
    prompt: ClassVar[PromptLike] = "Write a few sentences about the sea."
    tokenizer: ClassVar[str | None] = None
    patience: ClassVar[float] = 120.0

    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls) -> EngineSpec:
        """Return the spec of the engine to test; a subclass must."""
        raise NotImplementedError(f"{cls.__name__} needs a class-scoped fixture `engine` that returns an EngineSpec")

    @pytest.fixture(scope="class")
    @classmethod
    def embedding(cls) -> EngineSpec | None:
        """Return the spec of a model that embeds; needed where the plugin declares embeds/1 and ``engine`` does not."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def classifier(cls) -> EngineSpec | None:
        """Return the spec of a model that classifies, where ``engine`` does not."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def narrow(cls) -> EngineSpec | None:
        """Return the spec of the engine set to run one request at a time; needed where priority is declared yes."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def mount(cls, engine: EngineSpec) -> Iterator[Mount]:
        """Hold the engine, started when it is first used."""
        mount = Mount(engine, patience=cls.patience)
        yield mount
        mount.close()

    @pytest.fixture
    def mounted(self, mount: Mount, request: pytest.FixtureRequest) -> Iterator[Mount]:
        """Return the started engine. One that a test found leaking or hanging is not left to the next."""
        try:
            mount.ready()
        except (pytest.fail.Exception, Exception) as error:  # noqa: BLE001 - whatever it is, it is reported
            self.give_up(f"the engine does not start: {_named(error)}")
        yield mount
        if request.node.get_closest_marker(RESTART) and request.node.stash.get(FAILED, False):
            mount.abandon()

    @pytest.fixture
    def ask(self, mounted: Mount) -> Ask:
        """Return what asks the started engine."""
        return Ask(mounted, self.prompt, tokenizer=self.tokenizer, adapters=self.adapters, lacking=self.lacking)

    @pytest.fixture
    def narrow_ask(self, narrow: EngineSpec | None, mount: Mount) -> Iterator[Ask]:
        """Return what asks an engine that runs one request at a time."""
        if narrow is None:
            self.lacking(f"priority is declared yes; {advice.NARROW}")
        mount.close()  # two of one engine may not fit into memory
        alone = Mount(narrow, patience=self.patience)
        try:
            yield Ask(alone.ready(), self.prompt, tokenizer=self.tokenizer)
        finally:
            alone.close()

    @pytest.fixture
    def embedding_mount(self, embedding: EngineSpec | None) -> Iterator[Mount | None]:
        """Return a started model that embeds; None where the suite gives none."""
        if embedding is None:
            yield None
            return
        mount = Mount(embedding, patience=self.patience)
        try:
            yield mount.ready()
        finally:
            mount.close()

    @pytest.fixture
    def classifier_mount(self, classifier: EngineSpec | None) -> Iterator[Mount | None]:
        """Return a started model that classifies; None where the suite gives none."""
        if classifier is None:
            yield None
            return
        mount = Mount(classifier, patience=self.patience)
        try:
            yield mount.ready()
        finally:
            mount.close()

    def _settings(self) -> dict[str, object]:
        return dict(get_registry().engine(self.plugin).batch_config)


def _named(error: BaseException) -> str:
    """Return what an engine failed to start with, and what that came from."""
    if isinstance(error, pytest.fail.Exception):
        return str(error)
    cause = "" if error.__cause__ is None else f" (from {type(error.__cause__).__name__}: {error.__cause__})"
    return f"{type(error).__name__}: {error}{cause}"
