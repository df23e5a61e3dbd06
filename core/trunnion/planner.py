"""Plan, at run time, which stages a request passes: the cheapest chain to the kind the engine likes best."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
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
    """Choose among the stages that are there; holds no state about requests.

    A listed stage that converts prompts and is not automatic takes part in the chain and wins over others.
    """

    def __init__(
        self, stages: Sequence[StagePlugin], inserted: Sequence[StageSpec] = (), *, joined: Sequence[str] = ()
    ) -> None:
        """Take the stages that are there, those the user configured or inserted, and those that hooks bring along.

        Raises:
            ConfigError: A stage is unknown or named twice, or its position is none or names an unknown stage.
        """
        self._stages = {stage.name: stage for stage in stages}
        self._joined = frozenset(joined)
        for name, count in Counter(spec.stage for spec in inserted).items():
            if name not in self._stages:
                raise ConfigError(f"no stage is called {name!r}; there are: {', '.join(sorted(self._stages))}")
            if count > 1:
                raise ConfigError(
                    f"stage {name!r} is listed {count} times; a pipeline runs a stage once", param="stages"
                )
        named = {spec.stage for spec in inserted}
        inserted = [*inserted, *(StageSpec(stage=name) for name in joined if name not in named)]
        for spec in inserted:
            self._check_position(spec)
        listed = {spec.stage for spec in inserted if not spec.position}
        converters = [s for s in stages if s.shape == "request" and s.consumes is not None]
        self._converters = [s for s in converters if s.automatic or s.name in listed]
        self._preferred = {s.name for s in converters if s.name in listed and not s.automatic}
        self._inserted = [spec for spec in inserted if spec.position or self._is_extra(spec.stage)]

    def _is_extra(self, name: str) -> bool:
        """Tell whether a listed stage runs on top of what the planner chooses, rather than being configured only."""
        stage = self._stages[name]
        joined = name in self._joined and stage.consumes is None  # a converter is the planner's to place
        return (joined or not stage.automatic) and name not in self._preferred

    def _check_position(self, spec: StageSpec) -> None:
        if spec.position in ("", "first", "last"):
            return
        where, _, anchor = spec.position.partition(":")
        if where not in ("before", "after") or not anchor:
            raise ConfigError(
                f"stage {spec.stage!r}: position {spec.position!r} is none of first, last, before:NAME, after:NAME",
                param="position",
            )
        shape = self._stages[spec.stage].shape
        anchors = sorted(s.name for s in self._stages.values() if s.shape == shape and s.name != spec.stage)
        if anchor not in anchors:
            raise ConfigError(
                f"stage {spec.stage!r}: position {spec.position!r} names no other {shape} stage; "
                f"there are: {', '.join(anchors) or 'none'}",
                param="position",
            )

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
            if "detokenize" not in self._stages:
                raise UnsupportedFeature(
                    f"engine {engine!r} gives token ids, and there is no stage 'detokenize' to make text of them; "
                    "send detokenize=False, or unblock or install the stage (`trunnion plugins list`)",
                    param="detokenize",
                )
            stream.append("detokenize")
        request_stages = [*self._kind_keepers(lacking, supplied), *chain]
        placed = [spec for spec in self._inserted if spec.position]
        for spec in self._inserted:
            if not spec.position:
                (stream if self._stages[spec.stage].shape == "stream" else request_stages).append(spec.stage)
        request_stages = list(dict.fromkeys(request_stages))
        stream = sorted(dict.fromkeys(stream), key=lambda name: (self._stages[name].order, name))
        for spec in placed:
            _insert(stream if self._stages[spec.stage].shape == "stream" else request_stages, spec, carries)
        return Plan(
            carries=carries,
            sends=sends,
            request_stages=tuple(request_stages),
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
        if not accepts:
            raise UnsupportedFeature(f"engine {engine!r} takes no prompts of such requests", param="prompt")
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
            for stage in self._converters:
                if stage.consumes == kind and stage.produces:
                    step = 0.0 if stage.name in self._preferred else stage.cost
                    heapq.heappush(queue, (cost + step, [*path, stage.name], next(counter), stage.produces))
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


def _insert(stages: list[str], spec: StageSpec, carries: PromptKind) -> None:
    """Place a user's stage by its position; one that the planner chose as well is moved there."""
    if spec.stage in stages:
        stages.remove(spec.stage)
    where, _, anchor = spec.position.partition(":")
    if where == "first":
        stages.insert(0, spec.stage)
    elif where == "last":
        stages.append(spec.stage)
    elif anchor in stages:
        stages.insert(stages.index(anchor) + (where == "after"), spec.stage)
    else:  # running without a stage that someone asked for would be silent
        raise ConfigError(
            f"stage {spec.stage!r} is to run {where} {anchor!r}, which is no part of the plan for prompts given as "
            f"{carries}: {' -> '.join(stages) or 'no stages'}; place it first or last",
            param="position",
        )
