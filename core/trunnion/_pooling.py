"""Ask a started engine for vectors, scores, labels and transcripts, and hold it to what the protocols say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Final, TypeVar

from .engine import (
    Classification,
    Classifies,
    Embedding,
    Embeds,
    Engine,
    EngineInfo,
    Score,
    Scores,
    Transcribes,
    Transcription,
)
from .errors import InternalError, InvalidArgument, TrunnionError, UnsupportedFeature
from .events import Usage
from .pooling import PoolingAnswer, PoolingRequest
from .requests import Prompt, TextPrompt

P = TypeVar("P")

_UNCOUNTED: Final = Usage(prompt_tokens=0, completion_tokens=0)


class Pooling:
    """Reach what one engine makes of prompts besides text."""

    def __init__(self, engine: Engine, info: EngineInfo) -> None:
        self._engine = engine
        self._info = info

    async def embed(self, prompts: Sequence[Prompt], *, dimensions: int | None, adapter: str | None) -> list[Embedding]:
        """Return one embedding per prompt."""
        engine = self._needed(Embeds, "embeds/1", "makes no embeddings; serve an embedding model")  # type: ignore[type-abstract]
        with self._foreign_errors():
            made = await engine.embed(prompts, dimensions=dimensions, adapter=adapter)
        return list(self._one_each(made, prompts, "vectors"))

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Return one score per text."""
        engine = self._needed(Scores, "scores/1", "scores no texts; serve an embedding model or a cross-encoder")  # type: ignore[type-abstract]
        with self._foreign_errors():
            made = await engine.score(query, texts)
            return [
                one if isinstance(one, Score) else Score(value=float(one), usage=_UNCOUNTED)
                for one in self._one_each(made, texts, "scores")
            ]

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probabilities of the labels per prompt."""
        engine = self._needed(Classifies, "classifies/1", "classifies nothing; serve a sequence classification model")  # type: ignore[type-abstract]
        with self._foreign_errors():
            made = await engine.classify(prompts)
            return [
                one
                if isinstance(one, Classification)
                else Classification(probabilities={str(k): float(v) for k, v in one.items()}, usage=_UNCOUNTED)
                for one in self._one_each(made, prompts, "classifications")
            ]

    async def transcribe(self, audio: bytes, *, mime_type: str, language: str | None) -> Transcription:
        """Return what is spoken."""
        lacking = "transcribes no audio; choose an engine and a model that do (`trunnion engines --markdown`)"
        engine = self._needed(Transcribes, "transcribes/1", lacking)  # type: ignore[type-abstract]
        with self._foreign_errors():
            made = await engine.transcribe(audio, mime_type=mime_type, language=language)
        found = Transcription(text=made, usage=_UNCOUNTED) if isinstance(made, str) else made
        if not isinstance(found, Transcription):
            raise InternalError(f"engine {self._info.engine!r} transcribed audio to {type(made).__name__}, not to text")
        return found

    async def answer(self, request: PoolingRequest) -> PoolingAnswer:
        """Return the answer to a request of any task."""
        if request.task == "embed":
            (vector,) = await self.embed([request.prompt], dimensions=request.dimensions, adapter=request.adapter)
            return PoolingAnswer(task="embed", vector=vector.vector, usage=vector.usage)
        if request.task == "classify":
            (found,) = await self.classify([request.prompt])
            return PoolingAnswer(task="classify", probabilities=found.probabilities, usage=found.usage)
        if not isinstance(request.prompt, TextPrompt):
            raise InvalidArgument(f"the query of a score is text, not {request.prompt.kind}", param="query")
        scores = await self.score(request.prompt.text, request.texts)
        usage = Usage(
            prompt_tokens=sum(one.usage.prompt_tokens for one in scores),
            completion_tokens=0,
            cached_tokens=sum(one.usage.cached_tokens for one in scores),
        )
        return PoolingAnswer(task="score", scores=[one.value for one in scores], usage=usage)

    def _needed(self, protocol: type[P], name: str, lacking: str) -> P:
        info, engine = self._info, self._engine
        if name not in info.capabilities.protocols or not isinstance(engine, protocol):
            why = info.capabilities.reasons.get(name)
            message = f"engine {info.engine!r} with model {info.model!r} {lacking}" + (f" ({why})" if why else "")
            raise UnsupportedFeature(message, param="model", details={"engine": info.engine, "feature": name})
        return engine

    @contextmanager
    def _foreign_errors(self) -> Iterator[None]:
        try:
            yield
        except TrunnionError:
            raise
        except Exception as error:
            message = (
                f"engine {self._info.engine!r} raised {type(error).__name__}, not an error of trunnion.errors: {error}"
            )
            raise InternalError(message) from error

    def _one_each(self, made: Sequence[P], asked: Sized, what: str) -> Sequence[P]:
        if len(made) != len(asked):
            raise InternalError(f"engine {self._info.engine!r} answered {len(asked)} inputs with {len(made)} {what}")
        return made
