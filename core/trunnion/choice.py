"""Choose an engine at run time: by what is installed, what hardware is there, and what the model needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .capabilities import PROTOCOLS, Support
from .errors import ConfigError, PluginNotFound
from .loader import PluginState
from .suitability import EngineQuestion, Machine, ModelFacts, Suitability

if TYPE_CHECKING:
    from .plugin import EnginePlugin
    from .registry import Registry

AUTO: Final = "auto"
"""The engine's name that leaves the choice to :func:`choose_engine`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Say which engine was chosen, why, and what spoke against each of the others, by name."""

    engine: str
    reason: str
    against: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return it as one line."""
        others = "; ".join(f"{name}: {reason}" for name, reason in self.against.items())
        return f"{self.engine}: {self.reason}" + (f" (not {others})" if others else "")


_NO_MODEL: Final = "it needs a model"


def choose_engine(
    model: str | None = None,
    config: Mapping[str, Any] | None = None,
    *,
    adapters: Mapping[str, str] | None = None,
    needs: Iterable[str] = (),
    machine: Machine | None = None,
    registry: Registry | None = None,
) -> EngineChoice:
    """Return the engine that suits best.

    Args:
        model: Path or name of the model; None where there is none.
        config: Settings that the engine must know.
        adapters: LoRA adapters that it must take, name to path.
        needs: Features and protocols it must have, such as "adapter" or "embeds/1" (see :data:`trunnion.FEATURES`).
        machine: The hardware it will find; this machine's by default.
        registry: Where plugins are looked up; this process's by default.

    Raises:
        PluginNotFound: None suits; the message says what speaks against each.
    """
    if registry is None:
        from .registry import get_registry

        registry = get_registry()
    facts = None if model is None else ModelFacts.of(model)
    question = EngineQuestion(model=facts, machine=machine or Machine.here(), config=dict(config or {}))
    wanted = (*needs, *(["adapter"] if adapters else []))
    answers = {plugin.name: _ask(registry, plugin, question, wanted, adapters) for plugin in registry.engines()}
    against = {
        record.name: f"{record.state.value}: {record.reason}"
        for record in registry.plugins()
        if record.kind in ("engine", "") and record.state is not PluginState.OK
    }
    against |= {name: answer.reason for name, answer in answers.items() if not answer.score}
    fit = sorted((name for name, answer in answers.items() if answer.score), key=lambda n: (-answers[n].score, n))
    if not fit:
        if model is None and any(answer.reason == _NO_MODEL for answer in answers.values()):
            named = ", ".join(sorted(name for name, answer in answers.items() if answer.reason == _NO_MODEL))
            raise PluginNotFound(
                f"no engine can be chosen without a model: name one, by path or by name, for {named}; or an engine "
                "that needs none: `--engine sim`, in Python engine='sim', simulates"
            )
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(against.items())) or "none is installed"
        raise PluginNotFound(
            f"no engine can be chosen ({reasons}). Install one, such as `pip install 'trunnion[vllm]'` for GPUs or "
            "`pip install 'trunnion[transformers]'`, or name one: `--engine sim`, in Python engine='sim', simulates"
        )
    against |= {name: f"{answers[name].reason}, which ranks lower" for name in fit[1:]}
    return EngineChoice(engine=fit[0], reason=answers[fit[0]].reason, against=dict(sorted(against.items())))


def _ask(
    registry: Registry,
    plugin: EnginePlugin,
    question: EngineQuestion,
    needs: tuple[str, ...],
    adapters: Mapping[str, str] | None,
) -> Suitability:
    """Return the plugin's answer, unless something that holds for every engine speaks against it."""
    if plugin.needs_model and question.model is None:
        return Suitability(score=0, reason=_NO_MODEL)
    if set(plugin.hardware) == {"gpu"} and not question.machine.gpus:
        return Suitability(score=0, reason="it needs a GPU, and there is none")
    for need in needs:
        if not _has(plugin, need):
            return Suitability(score=0, reason=f"it has no {need.partition('/')[0]}")
    try:
        model = None if question.model is None else question.model.reference
        registry.engine_spec(plugin.name, model, question.config, adapters=adapters)
    except ConfigError as error:
        return Suitability(score=0, reason=error.message)
    if plugin.suits is None:
        return Suitability(score=0, reason="it does not say what it suits; name it to use it")
    return plugin.suits(question)


def _has(plugin: EnginePlugin, need: str) -> bool:
    if need in PROTOCOLS:
        return need in plugin.capabilities.protocols
    return plugin.capabilities.support(need) is not Support.NO
