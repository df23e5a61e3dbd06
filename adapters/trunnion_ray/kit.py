"""Let the conformance kit ask an engine inside a Ray actor and in a Ray Data pipeline."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from trunnion import EngineSpec, GenerateRequest, SamplingParams, SyncPipeline, TextPrompt, as_prompt
from trunnion.testing.surface import Answer, Question

_LOGICAL_CPUS = 4
"""Ray's count; an engine's declared resources must fit in, whatever this machine has."""


@contextmanager
def _ray() -> Iterator[Any]:
    """Use the Ray there is, else one of our own for as long as it is needed."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    path = os.pathsep.join(entry for entry in sys.path if entry)
    ray.init(
        num_cpus=_LOGICAL_CPUS,
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
        runtime_env={"env_vars": {"PYTHONPATH": path}},
    )
    try:
        yield ray
    finally:
        ray.shutdown()


def _unavailable() -> str | None:
    lacking = [name for name in ("ray", "pyarrow") if importlib.util.find_spec(name) is None]
    return f"{lacking[0]} is not installed (pip install 'trunnion[ray]')" if lacking else None


class ActorSurface:
    """Run the engine in an actor, in process."""

    def unavailable(self) -> str | None:
        """Return that Ray is missing, if it is."""
        return _unavailable()

    def ask(self, spec: EngineSpec, questions: Sequence[Question]) -> list[Answer]:
        """Ask inside an actor."""
        with _ray() as ray:
            actor = ray.remote(_Actor).options(num_cpus=1).remote(spec)
            try:
                answers: list[Answer] = ray.get(actor.ask.remote(list(questions)))
                ray.get(actor.close.remote())
                return answers
            finally:
                ray.kill(actor)


class _Actor:
    """Hold a pipeline."""

    def __init__(self, spec: EngineSpec) -> None:
        self._pipeline = SyncPipeline(spec)

    def ask(self, questions: list[Question]) -> list[Answer]:
        """Answer side by side."""
        requests = [
            GenerateRequest(
                prompt=TextPrompt(text=q.prompt) if isinstance(q.prompt, str) else as_prompt(q.prompt),
                sampling=SamplingParams(**q.sampling),
            )
            for q in questions
        ]
        answers = []
        for completion in self._pipeline.complete(requests):
            assert completion.usage is not None  # collect() raises otherwise
            choice, usage = completion.choices[0], completion.usage
            answers.append(
                Answer(
                    text=choice.text,
                    finish_reason=choice.finish_reason,
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                )
            )
        return answers

    def close(self) -> None:
        """Stop the engine."""
        self._pipeline.close()


class DataSurface:
    """Run the engine as the processor of a Ray Data pipeline."""

    def unavailable(self) -> str | None:
        """Return that Ray is missing, if it is."""
        return _unavailable()

    def ask(self, spec: EngineSpec, questions: Sequence[Question]) -> list[Answer]:
        """Ask in a batch of one row per question."""
        from .data import ProcessorConfig, build_processor

        rows = [
            {"number": number, "prompt": json.dumps(q.prompt), "sampling": json.dumps(dict(q.sampling))}
            for number, q in enumerate(questions)
        ]
        config = ProcessorConfig(engine=spec.engine, model=spec.model, config=dict(spec.config))
        with _ray() as ray:
            processor = build_processor(config, preprocess=_request_of)
            answered = {row["number"]: row for row in processor(ray.data.from_items(rows)).take_all()}
        failed = [row["error"] for row in answered.values() if row["error"] is not None]
        assert not failed, failed[0]
        return [
            Answer(
                text=row["generated_text"],
                finish_reason=row["finish_reason"],
                prompt_tokens=row["num_input_tokens"],
                completion_tokens=row["num_generated_tokens"],
            )
            for _, row in sorted(answered.items())
        ]


def _request_of(row: dict[str, Any]) -> dict[str, Any]:
    prompt = json.loads(row["prompt"])
    asked = {"prompt": prompt} if isinstance(prompt, str) else {"messages": prompt}
    return {**asked, "sampling_params": json.loads(row["sampling"])}
