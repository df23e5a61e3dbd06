"""Plan, at run time, which stages a request passes: the cheapest chain to the kind the engine likes best."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import ConfigError, UnsupportedFeature
from .plugin import StagePlugin
from .requests import PromptKind
from .spec import StageSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Name the stages of a request, in the order they run.

    Attributes:
        carries: The prompt kind the request came with.
        sends: The prompt kind the engine gets.
        request_stages: Before the engine.
        stream_stages: After it.
        detokenize_in_pipeline: Whether the engine is asked for token ids alone.
        supplied: Features the stages take off the engine's hands.
    """

    carries: PromptKind
    sends: PromptKind
    request_stages: tuple[str, ...] = ()
    stream_stages: tuple[str, ...] = ()
    detokenize_in_pipeline: bool = False
    supplied: frozenset[str] = frozenset()


class Planner:
    """Choose among the stages that are there; holds no state about requests."""

    def __init__(self, stages: Sequence[StagePlugin], inserted: Sequence[StageSpec] = ()) -> None:
        self._stages = {stage.name: stage for stage in stages}
        self._inserted = [spec for spec in inserted if spec.position or not self._automatic(spec.stage)]
        for spec in inserted:
            if spec.stage not in self._stages:
                raise ConfigError(f"no stage is called {spec.stage!r}; there are: {', '.join(sorted(self._stages))}")

    def _automatic(self, name: str) -> bool:
        return name in self._stages and self._stages[name].automatic

    def plan(
        self,
        carries: PromptKind,
        accepts: Sequence[PromptKind],
        *,
        lacking: Sequence[str] = (),
        detokenize: bool = False,
        engine: str = "?",
    ) -> Plan:
        """Plan for one shape of request.

        Args:
            carries: The prompt kind of the request.
            accepts: Kinds the engine accepts, the preferred one first.
            lacking: Features the request uses and the engine does not have.
            detokenize: Whether the pipeline makes the text of the engine's token ids.
            engine: The engine's name, for messages.

        Raises:
            UnsupportedFeature: No chain of stages reaches a kind the engine accepts.
            ConfigError: An inserted stage names a position that is not in the plan.
        """
        sends, chain = self._chain(carries, accepts, engine)
        stream, supplied = self._suppliers(lacking, chain)
        if detokenize:
            stream.append("detokenize")
        request_stages = [*self._kind_keepers(lacking, supplied), *chain]
        for spec in self._inserted:
            if self._stages[spec.stage].shape == "stream":
                stream.append(spec.stage)
            else:
                _insert(request_stages, spec)
        stream = sorted(dict.fromkeys(stream), key=lambda name: (self._stages[name].order, name))
        return Plan(
            carries=carries,
            sends=sends,
            request_stages=tuple(dict.fromkeys(request_stages)),
            stream_stages=tuple(stream),
            detokenize_in_pipeline=detokenize,
            supplied=frozenset(supplied),
        )

    def _chain(self, carries: PromptKind, accepts: Sequence[PromptKind], engine: str) -> tuple[PromptKind, list[str]]:
        """Return the most preferred kind that can be reached and the cheapest chain to it."""
        paths = self._cheapest_paths(carries)
        for kind in accepts:
            if kind in paths:
                return kind, paths[kind]
        raise UnsupportedFeature(
            f"engine {engine!r} takes prompts as {' or '.join(accepts)}, and no stage turns {carries} into that; "
            f"send {accepts[0]}, or install a stage that converts them (`trunnion plugins list`)",
            param="prompt",
        )

    def _cheapest_paths(self, start: PromptKind) -> dict[PromptKind, list[str]]:
        """Run Dijkstra over the kinds; ties go to the name, so that plans are the same everywhere."""
        counter = itertools.count()
        queue: list[tuple[float, list[str], int, PromptKind]] = [(0.0, [], next(counter), start)]
        done: dict[PromptKind, list[str]] = {}
        while queue:
            cost, path, _, kind = heapq.heappop(queue)
            if kind in done:
                continue
            done[kind] = path
            for stage in self._stages.values():
                if stage.shape == "request" and stage.consumes == kind and stage.produces and stage.automatic:
                    heapq.heappush(queue, (cost + stage.cost, [*path, stage.name], next(counter), stage.produces))
        return done

    def _suppliers(self, lacking: Sequence[str], chain: Sequence[str]) -> tuple[list[str], set[str]]:
        """Return the stream stages that supply what the engine lacks, and what they supply."""
        chosen: list[str] = []
        supplied: set[str] = set()
        for stage in self._stages.values():
            usable = stage.shape == "stream" and stage.automatic and all(need in chain for need in stage.needs)
            if usable and stage.supplies.intersection(lacking):
                chosen.append(stage.name)
                supplied |= stage.supplies
        return chosen, supplied

    def _kind_keepers(self, lacking: Sequence[str], supplied: set[str]) -> list[str]:
        """Return request stages that keep the kind and help to supply what the engine lacks (such as tool choice)."""
        helpers = [
            stage.name
            for stage in self._stages.values()
            if stage.shape == "request"
            and stage.consumes is None
            and stage.automatic
            and stage.supplies.intersection(lacking)
            and stage.supplies <= supplied
        ]
        return sorted(helpers)


def _insert(stages: list[str], spec: StageSpec) -> None:
    """Place a user's stage by its position."""
    where, _, anchor = spec.position.partition(":")
    if where == "first":
        stages.insert(0, spec.stage)
    elif where in ("last", ""):
        stages.append(spec.stage)
    elif where in ("before", "after"):
        if anchor in stages:
            stages.insert(stages.index(anchor) + (where == "after"), spec.stage)
    else:
        raise ConfigError(
            f"stage {spec.stage!r}: position {spec.position!r} is none of first, last, before:NAME, after:NAME",
            param="position",
        )
