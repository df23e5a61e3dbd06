"""Make token ids of prompts and text of token ids, by the stages that a pipeline has for its engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

from trunnion.errors import InternalError, InvalidArgument, TrunnionError, UnsupportedFeature
from trunnion.events import ChoiceDelta, GenerateEvent
from trunnion.pipeline import Pipeline
from trunnion.planner import Planner
from trunnion.requests import GenerateRequest, SamplingParams, TokensPrompt
from trunnion.stage import Stage, StageContext, StreamStage


@runtime_checkable
class Tokenizes(Protocol):
    """Tokenize for clients; what a model handle may be able to do as well."""

    async def tokenize(self, request: GenerateRequest) -> Sequence[int]:
        """Return the token ids of the request's prompt. Raises :class:`UnsupportedFeature` where none can be made."""
        ...

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included.

        Raises:
            UnsupportedFeature: There is no tokenizer.
            InvalidArgument: An id is none of the vocabulary's.
        """
        ...


class PipelineTokenizer:
    """Run a pipeline's stages up to token ids, whatever kind of prompt its engine takes. Thread-safe.

    Request hooks are not asked.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        """Take a started pipeline; nothing is loaded before the first use."""
        self._pipeline = pipeline
        self._lock = threading.Lock()
        self._built: dict[str, Stage | StreamStage] = {}

    async def tokenize(self, request: GenerateRequest) -> Sequence[int]:
        """Return the token ids of the prompt, made on a worker thread.

        Raises:
            UnsupportedFeature: The engine keeps its tokenizer to itself, or the prompt holds media.
            InvalidArgument: The chat template refuses the messages.
        """
        return await asyncio.to_thread(self._tokenize, request)

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        """Return the text of token ids, special tokens included, made on a worker thread."""
        return await asyncio.to_thread(self._detokenize, token_ids)

    def _tokenize(self, request: GenerateRequest) -> Sequence[int]:
        self._check()
        if request.media:
            msg = "media are no tokens before the engine has seen them; leave them out to count the text"
            raise UnsupportedFeature(msg, param=f"media.{request.media[0].type}")
        spec, registry = self._pipeline.spec, self._pipeline.registry
        planner = Planner(registry.stages(), spec.stages, joined=registry.stages_of_hooks())
        plan = planner.plan(request.prompt.kind, ("token_ids",), engine=spec.engine.engine)
        for name in plan.request_stages:
            result = cast("Stage", self._stage(name)).process((request,))[0]
            if isinstance(result, TrunnionError):
                raise result
            request = result
        if not isinstance(request.prompt, TokensPrompt):
            raise InternalError(f"the stages {', '.join(plan.request_stages)} made no token ids")
        return request.prompt.token_ids

    def _detokenize(self, token_ids: Sequence[int]) -> str:
        self._check()
        largest = max(token_ids, default=None)
        # Vocabularies are numbered from zero without gaps, and an id beyond them decodes to nothing.
        if largest is not None and not self._text((largest, largest)):
            msg = f"tokens holds {largest}, which is no token of model {self._pipeline.info.model!r}"
            raise InvalidArgument(msg, param="tokens")
        return self._text(token_ids)

    def _text(self, token_ids: Sequence[int]) -> str:
        whole = SamplingParams(skip_special_tokens=False, include_stop_str_in_output=True)
        request = GenerateRequest(prompt=TokensPrompt(token_ids=()), request_id="", sampling=whole)
        transducer = cast("StreamStage", self._stage("detokenize")).open(request)
        assert transducer is not None, "the request wants text"
        event = GenerateEvent(choices=(ChoiceDelta(token_ids=token_ids, finish_reason="length"),))
        events = [*transducer.feed(event), *transducer.finish()]
        return "".join(choice.text for made in events for choice in made.choices)

    def _check(self) -> None:
        info = self._pipeline.info
        if info.tokenizer is None:
            msg = (
                f"engine {info.engine!r} names no tokenizer for model {info.model!r}, so nothing can be tokenized "
                "here; read the prompt's tokens in the usage of an answer"
            )
            raise UnsupportedFeature(msg, param="model", details={"engine": info.engine})

    def _stage(self, name: str) -> Stage | StreamStage:
        with self._lock:
            if name not in self._built:
                pipeline = self._pipeline
                configs = {stage.stage: stage.config for stage in pipeline.spec.stages}
                context = StageContext(info=pipeline.info)
                self._built[name] = pipeline.registry.build_stage(name, context, configs.get(name))
            return self._built[name]
