"""Define what a plugin registers: frozen values whose factories are strings, so that registering stays light."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel

from .capabilities import Capabilities
from .requests import PromptKind
from .settings import Settings
from .spec import Resources
from .suitability import EngineQuestion, Suitability

API_VERSION: Final = (1, 3)
"""The plugin API, ``(major, minor)``: a plugin built for another major, or for a later minor, is incompatible."""

ASSUMED_API_VERSION: Final = (1, 0)
"""What a plugin that does not state its ``api_version`` was written for: the first there was, whatever runs it."""


class PluginConfig(Settings):
    """Base of every plugin's configuration: frozen, unknown keys refused."""


class NoConfig(PluginConfig):
    """The configuration of a plugin that has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryRequirement:
    """Name the library a plugin needs where its engine runs.

    Attributes:
        module: The importable module, such as "vllm".
        distributions: Distributions that provide it; the first installed one gives the version.
        minimum: Lowest version that works, inclusive, such as "0.25.1"; empty for any.
        below: Lowest version that does not, exclusive; empty for none.
        install: The command that installs it.
    """

    module: str
    distributions: tuple[str, ...]
    minimum: str = ""
    below: str = ""
    install: str = ""


def _check_plugin(name: str, factory: str) -> None:
    """Refuse what could never be built, where it is declared: the loader reports it as a failed plugin."""
    module, _, attribute = factory.partition(":")
    if not name:
        raise ValueError("a plugin needs a name")
    if not module or not attribute:
        raise ValueError(f"plugin {name!r}: factory must be 'module:callable', not {factory!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EnginePlugin:
    """Register an engine.

    Attributes:
        name: What users write: ``engine="vllm"``.
        factory: ``"module:callable"``, called as ``factory(model, config)`` where the engine runs.
        config: The pydantic model of its configuration.
        summary: One line for ``trunnion plugins list``.
        capabilities: The upper bound, stated without loading anything; ``start()`` narrows it.
        resources: Pure and light, called as ``resources(config)``; None means one CPU.
        requires: Libraries the engine imports.
        needs_model: Whether a model must be named.
        model_files: Whether ``model`` names files, which the pipeline then brings to this node before the engine is
            built: ``factory`` is called with a path. A setting ``revision`` goes to the model's source. False for an
            engine to which it is a mere name; one that runs on "remote" hardware alone is never given a path, and
            one written for plugin API 1.0 gets bare names (of the Hub) as they are written.
        divide: Pure and light, called as ``divide(config, replicas)`` for a job on several replicas; returns the
            settings to change in each of them, so that limits which are the job's hold over all of them together.
            None: every replica takes the config as it is.
        batch_config: Settings for a batch, where throughput counts and latency does not; the user's own win.
        check_config: Settings with which ``trunnion plugins check`` tests it: answers that end by themselves, and take
            long enough to be interrupted. The user's own win; left out where they do not go with those.
        hardware: What it can run on, among "cpu", "gpu", "remote"; for people; one that runs on
            "gpu" alone is no choice of ``engine="auto"`` where there is no GPU.
        suits: Asked for ``engine="auto"``; pure and light. None: the engine is taken only where it is named.
        semantic_version: Changes when the same request may give another answer; part of result keys.
        api_version: The plugin API it was written for, such as ``(1, 3)``. Write the numbers: ``API_VERSION`` is that
            of the process it runs in. One that says nothing counts as written for 1.0.
    """

    name: str
    factory: str
    config: type[BaseModel] = NoConfig
    summary: str = ""
    capabilities: Capabilities = field(default_factory=Capabilities)
    resources: Callable[[Any], Resources] | None = None
    divide: Callable[[Any, int], Mapping[str, Any]] | None = None
    requires: tuple[LibraryRequirement, ...] = ()
    needs_model: bool = True
    model_files: bool = True
    batch_config: Mapping[str, Any] = field(default_factory=dict)
    check_config: Mapping[str, Any] = field(default_factory=dict)
    hardware: tuple[Literal["cpu", "gpu", "remote"], ...] = ("cpu",)
    suits: Callable[[EngineQuestion], Suitability] | None = None
    semantic_version: str = "1"
    api_version: tuple[int, int] = ASSUMED_API_VERSION
    kind: Literal["engine"] = "engine"

    def __post_init__(self) -> None:
        """Check what can be checked without importing anything."""
        _check_plugin(self.name, self.factory)


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlugin:
    """Register a stage.

    Attributes:
        name: What users write in a :class:`~trunnion.spec.StageSpec`.
        factory: ``"module:callable"``, called as ``factory(context, config)`` once the engine has started.
        shape: "request" for a :class:`~trunnion.stage.Stage`, "stream" for a :class:`~trunnion.stage.StreamStage`.
        consumes, produces: Prompt kinds, for a request stage; both None for one that keeps the kind (enrichment).
        supplies: Features the engine need not have when this stage is in the plan.
        needs: Stages that must be in the plan for ``supplies`` to hold.
        automatic: Whether the planner may use it unasked.
        cost: Relative cost, for the cheapest chain.
        order: Place among the stream stages: detokenize 10, stop strings 20, reasoning 30, tool calls 40, others 50.
    """

    name: str
    factory: str
    config: type[BaseModel] = NoConfig
    summary: str = ""
    shape: Literal["request", "stream"] = "request"
    consumes: PromptKind | None = None
    produces: PromptKind | None = None
    supplies: frozenset[str] = frozenset()
    needs: tuple[str, ...] = ()
    automatic: bool = True
    cost: float = 1.0
    order: int = 50
    requires: tuple[LibraryRequirement, ...] = ()
    api_version: tuple[int, int] = ASSUMED_API_VERSION
    kind: Literal["stage"] = "stage"

    def __post_init__(self) -> None:
        """Check what can be checked without importing anything."""
        _check_plugin(self.name, self.factory)
        if self.shape not in ("request", "stream"):
            raise ValueError(f"stage {self.name!r}: shape must be request or stream, not {self.shape!r}")
        converts = self.consumes is not None
        if converts != (self.produces is not None) or (converts and self.consumes == self.produces):
            raise ValueError(
                f"stage {self.name!r}: set consumes and produces to two kinds, or neither to keep the kind"
            )
        if converts and self.shape == "stream":
            raise ValueError(f"stage {self.name!r}: a stream stage neither consumes nor produces prompts")
        if self.cost < 0:
            raise ValueError(f"stage {self.name!r}: cost must be 0 or more, not {self.cost}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterPlugin:
    """Register a router; ``factory`` is called as ``factory(config)``."""

    name: str
    factory: str
    config: type[BaseModel] = NoConfig
    summary: str = ""
    requires: tuple[LibraryRequirement, ...] = ()
    api_version: tuple[int, int] = ASSUMED_API_VERSION
    kind: Literal["router"] = "router"

    def __post_init__(self) -> None:
        """Check what can be checked without importing anything."""
        _check_plugin(self.name, self.factory)


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksPlugin:
    """Register policy around the engine; ``factory`` is called as ``factory(config)`` when a pipeline opens.

    ``config`` is made of what the pipeline's spec says of these hooks (``PipelineSpec.hooks``), or without values: a
    setting without a default must then be set, or no pipeline opens. What the factory returns has any of the methods
    of :class:`~trunnion.hooks.RequestHooks`. Hooks run in the order of ``priority`` (lower first), then of name.

    ``stages`` names stages that the hooks rely on, such as one that undoes in the answer what ``before_request`` did
    to the prompt. They join every plan unasked (a stream stage by its ``order``, a request stage right before the
    engine), and no pipeline opens where one cannot be used. What hooks tell them goes into ``GenerateRequest.notes``.
    """

    name: str
    factory: str
    config: type[BaseModel] = NoConfig
    summary: str = ""
    priority: int = 0
    stages: tuple[str, ...] = ()
    requires: tuple[LibraryRequirement, ...] = ()
    api_version: tuple[int, int] = ASSUMED_API_VERSION
    kind: Literal["hooks"] = "hooks"

    def __post_init__(self) -> None:
        """Check what can be checked without importing anything."""
        _check_plugin(self.name, self.factory)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePlugin:
    """Register a source of models.

    Attributes:
        name: What users write in ``TRUNNION_SOURCES`` to set it up.
        factory: ``"module:callable"``, called as ``factory(config)``; returns a :class:`~trunnion.fetch.Source`.
        schemes: The schemes of references it fetches, in lower case: ``("s3",)`` for ``s3://bucket/model``. "hf" gets
            bare names (``org/name``) as well.
        config: Made of what ``TRUNNION_SOURCES`` holds under ``name``, so every setting needs a default.
        requires: Libraries it imports.
    """

    name: str
    factory: str
    schemes: tuple[str, ...]
    config: type[BaseModel] = NoConfig
    summary: str = ""
    requires: tuple[LibraryRequirement, ...] = ()
    api_version: tuple[int, int] = ASSUMED_API_VERSION
    kind: Literal["source"] = "source"

    def __post_init__(self) -> None:
        """Check what can be checked without importing anything."""
        _check_plugin(self.name, self.factory)
        if not self.schemes or any(not scheme or scheme != scheme.lower() for scheme in self.schemes):
            raise ValueError(f"source {self.name!r}: schemes must be names in lower case, not {self.schemes!r}")


Plugin = EnginePlugin | StagePlugin | RouterPlugin | HooksPlugin | SourcePlugin


def load_factory(path: str) -> Callable[..., Any]:
    """Import ``"module:attribute"`` and return it. Raises ImportError or AttributeError as they come."""
    module, _, attribute = path.partition(":")
    target: Any = importlib.import_module(module)
    for part in attribute.split("."):
        target = getattr(target, part)
    return target  # type: ignore[no-any-return]
