"""Prepare requests for a started engine: plan, template, tokenize, open stream stages. Works from any thread."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Final, cast

from .capabilities import HINTS, Support, check_extra, check_features, used_features
from .engine import EngineInfo
from .errors import InternalError, InvalidArgument, TrunnionError
from .media import with_media
from .planner import Plan, Planner
from .registry import Registry
from .requests import GenerateRequest, MessagesPrompt, SamplingParams, TextPrompt, TokensPrompt
from .spec import PipelineSpec
from .stage import Stage, StageContext, StreamStage, Transducer

_SAMPLING_FIELDS: Final = SamplingParams.__dataclass_fields__
_REQUEST_FIELDS: Final = GenerateRequest.__dataclass_fields__
_checked_fields = attrgetter(
    "sampling", "output_format", "tools", "tool_choice", "adapter", "priority", "cache_salt", "handoff", "media"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Hold a request as the engine gets it, and the transducers its events pass. Good for one run."""

    request: GenerateRequest
    transducers: tuple[Transducer, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _BoundPlan:
    """Hold a plan with its stages built."""

    plan: Plan
    request_stages: tuple[Stage, ...]
    stream_stages: tuple[StreamStage, ...]


class Preparer:
    """Plan each shape of request once, and run the request stages over batches."""

    def __init__(self, spec: PipelineSpec, registry: Registry, info: EngineInfo) -> None:
        self._registry = registry
        self._info = info
        self._configs = {stage.stage: stage.config for stage in spec.stages}
        for stage in spec.stages:
            registry.stage(stage.stage)  # says why one that was asked for cannot be used
        stages = registry.stages()
        joined = registry.stages_of_hooks()
        self._planner = Planner(stages, spec.stages, joined=joined)
        self._lock = threading.RLock()  # plans and stages are built once, whichever thread comes first
        self._plans: dict[tuple[object, ...], _BoundPlan] = {}
        self._built: dict[str, Stage | StreamStage] = {}
        skippable = info.capabilities.support("detokenize") is Support.YES and info.tokenizer is not None
        self._can_skip_text = skippable and any(stage.name == "detokenize" for stage in stages)
        for name in (*self._configs, *joined):
            self._stage(name)  # a wrong setting is reported at start, not by the first request

    def plan(self, request: GenerateRequest) -> Plan:
        """Return the plan of a request. Raises :class:`UnsupportedFeature` if it cannot be served."""
        return self._bind(with_media(request)).plan

    def _bind(self, request: GenerateRequest) -> _BoundPlan:
        if request.extra:
            check_extra(request, engine=self._info.engine)
        features = self._info.capabilities.features
        used = used_features(request)
        lacking = tuple(f for f in used if features.get(f, Support.NO) is Support.NO and f not in HINTS)
        detokenize = request.detokenize and (
            not self._info.emits_text or (self._can_skip_text and self._skips_text(request))
        )
        if not isinstance(request.prompt, MessagesPrompt | TextPrompt | TokensPrompt):
            raise InvalidArgument(
                f"prompt must be a MessagesPrompt, TextPrompt or TokensPrompt, not {type(request.prompt).__name__}; "
                "trunnion.as_prompt makes one of a string or a list of messages",
                param="prompt",
            )
        key = (request.prompt.kind, bool(request.media), lacking, detokenize)
        bound = self._plans.get(key)
        if bound is None:
            with self._lock:
                bound = self._plans.get(key)
                if bound is None:
                    bound = self._plans[key] = self._make(request, lacking, detokenize=detokenize)
        return bound

    @staticmethod
    def _skips_text(request: GenerateRequest) -> bool:
        """Tell whether text is cheaper made here: once at the end, of all token ids."""
        sampling = request.sampling
        return request.delivery == "final" and not sampling.stop and sampling.logprobs is None

    def _make(self, request: GenerateRequest, lacking: tuple[str, ...], *, detokenize: bool) -> _BoundPlan:
        capabilities, engine = self._info.capabilities, self._info.engine
        plan = self._planner.plan(
            request.prompt.kind,
            capabilities.prompts_for(request),
            lacking=lacking,
            detokenize=detokenize,
            engine=engine,
        )
        check_features(lacking, capabilities, engine=engine, supplied=plan.supplied)
        return _BoundPlan(
            plan=plan,
            request_stages=tuple(cast("Stage", self._stage(name)) for name in plan.request_stages),
            stream_stages=tuple(cast("StreamStage", self._stage(name)) for name in plan.stream_stages),
        )

    def _stage(self, name: str) -> Stage | StreamStage:
        if name not in self._built:
            context = StageContext(info=self._info)
            self._built[name] = self._registry.build_stage(name, context, self._configs.get(name))
        return self._built[name]

    def prepare_one(self, request: GenerateRequest) -> Prepared | TrunnionError:
        """Plan, template and tokenize one request; returns its error, like :meth:`prepare`."""
        try:
            request = with_media(request)
            bound = self._bind(request)
        except TrunnionError as error:
            return error
        if not bound.request_stages:
            return self._open(bound, request, request)
        return self.prepare((request,))[0]

    def prepare(self, requests: Sequence[GenerateRequest]) -> list[Prepared | TrunnionError]:
        """Plan, template and tokenize many requests at once.

        Returns:
            One result per request, in order: what the pipeline runs, or the error of that request.
        """
        results: dict[int, Prepared | TrunnionError] = {}
        groups: dict[int, tuple[_BoundPlan, list[int]]] = {}
        asked = list(requests)
        for index, request in enumerate(requests):
            try:
                asked[index] = with_media(request)
                bound = self._bind(asked[index])
            except TrunnionError as error:
                results[index] = error
            else:
                groups.setdefault(id(bound), (bound, []))[1].append(index)
        for bound, indexes in groups.values():
            items: dict[int, GenerateRequest] = {index: asked[index] for index in indexes}
            for name, stage in zip(bound.plan.request_stages, bound.request_stages, strict=True):
                items = _run_stage(name, stage, items, results)
            for index, item in items.items():
                results[index] = self._open(bound, asked[index], item)
        return [results[index] for index in range(len(asked))]

    def _open(self, bound: _BoundPlan, asked: GenerateRequest, item: GenerateRequest) -> Prepared | TrunnionError:
        """Open the stream stages, and take from the request what they supply instead of the engine."""
        try:
            if item is not asked and _checked_fields(item) != _checked_fields(asked):
                # A stage demanded something of its own, such as a format: the engine must have it.
                capabilities, engine = self._info.capabilities, self._info.engine
                check_features(used_features(item), capabilities, engine=engine, supplied=bound.plan.supplied)
            if not bound.stream_stages:
                return Prepared(request=item if item.notes is None else item.with_(notes=None))
            view = asked
            if item.prompt is not asked.prompt or item.notes is not asked.notes:
                view = asked.with_(prompt=item.prompt, notes=item.notes)
            transducers = []
            for name, stage in zip(bound.plan.stream_stages, bound.stream_stages, strict=True):
                transducer = _open_stage(name, stage, view)
                if transducer is not None:
                    transducers.append(transducer)
        except TrunnionError as error:
            return error
        return Prepared(request=_strip(item, bound.plan), transducers=tuple(transducers))


def _open_stage(name: str, stage: StreamStage, request: GenerateRequest) -> Transducer | None:
    try:
        return stage.open(request)
    except TrunnionError:
        raise
    except Exception as error:  # a careless stage fails its rows, not the job
        raise InternalError(f"stage {name!r} raised {type(error).__name__}: {error}") from error


def _run_stage(
    name: str, stage: Stage, items: dict[int, GenerateRequest], results: dict[int, Prepared | TrunnionError]
) -> dict[int, GenerateRequest]:
    """Run one stage; errors go to the results, what is left comes back."""
    if not items:
        return items
    try:
        outcome: list[object] = list(stage.process(list(items.values())))
    except TrunnionError as error:
        outcome = [error] * len(items)
    except Exception as error:  # noqa: BLE001 - a careless stage fails its rows, not the job
        failure = InternalError(f"stage {name!r} raised {type(error).__name__}: {error}")
        failure.__cause__ = error
        outcome = [failure] * len(items)
    if len(outcome) != len(items):
        message = f"stage {name!r} returned {len(outcome)} results for {len(items)} requests; it must return one each"
        outcome = [InternalError(message)] * len(items)
    kept: dict[int, GenerateRequest] = {}
    for index, result in zip(items, outcome, strict=True):
        if isinstance(result, GenerateRequest):
            kept[index] = result
        elif isinstance(result, TrunnionError):
            results[index] = result
        else:
            returned = type(result).__name__
            results[index] = InternalError(f"stage {name!r} returned {returned}, neither a request nor an error")
    return kept


def _strip(request: GenerateRequest, plan: Plan) -> GenerateRequest:
    """Remove what the stages supply and what was meant for them, so that the engine does not see it as well."""
    changes: dict[str, object] = {} if request.notes is None else {"notes": None}
    names = {f.removeprefix("sampling.") for f in plan.supplied if f.startswith("sampling.")}
    if names:
        defaults = {name: _SAMPLING_FIELDS[name].default for name in names}
        changes["sampling"] = replace(request.sampling, **defaults)  # type: ignore[arg-type]
    changes.update({name: _REQUEST_FIELDS[name].default for name in plan.supplied if name in _REQUEST_FIELDS})
    wanted = request.output_format
    if wanted is not None and f"output_format.{wanted.kind}" in plan.supplied:
        changes["output_format"] = None
    if "sampling.stop" in plan.supplied and request.delivery == "final":
        changes["delivery"] = "delta"  # a stage can end the engine's work only while it sees it
    if plan.detokenize_in_pipeline:
        changes["detokenize"] = False
    return request.with_(**changes) if changes else request
