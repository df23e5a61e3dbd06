"""Answer ``POST /v1/score``, ``/v1/rerank`` and ``/v1/classify``, as vLLM's and Jina's servers do."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from trunnion.engine import Classification, Score
from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.events import Usage
from trunnion.requests import Prompt

from .call import Call
from .completions import parse_prompts
from .generation import check_choices
from .wire import encode
from .wire.scoring import decode_classify, decode_rerank, decode_score

if TYPE_CHECKING:
    from .app import App


@runtime_checkable
class Judges(Protocol):
    """Score and classify: what a model handle may offer beside the methods of every one."""

    @property
    def name(self) -> str:
        """Return the name clients send as ``model``."""
        ...

    async def score(self, query: str, texts: Sequence[str]) -> list[Score]:
        """Return one score per text, in order. Raises :class:`UnsupportedFeature` if the model scores nothing."""
        ...

    async def classify(self, prompts: Sequence[Prompt]) -> list[Classification]:
        """Return the probabilities per prompt. Raises :class:`UnsupportedFeature` if the model classifies nothing."""
        ...


async def score(app: App, call: Call) -> None:
    """Decode, score one text against many, or pairs, answer with one score each."""
    body = decode_score(await call.body(app.settings))
    handle = _judge(app, call, body.model)
    pairs = _pairs(body.text_1, body.text_2)
    check_choices(len(pairs), app.settings, "text_2")
    public_id, _ = app.ids(call, None)
    call.watch(app.watch)
    found: list[Score] = []
    for query, group in itertools.groupby(pairs, key=itemgetter(0)):
        found += await handle.score(query, [text for _, text in group])
    data = [{"index": index, "object": "score", "score": one.value} for index, one in enumerate(found)]
    await call.answer(
        encode(
            {
                "id": call.named(f"score-{public_id}"),
                "object": "list",
                "created": int(time.time()),
                "model": body.model or handle.name,
                "data": data,
                "usage": _usage(call, found),
            }
        )
    )


async def rerank(app: App, call: Call) -> None:
    """Decode, score the documents, answer with the best first; of equal ones the earlier first."""
    body = decode_rerank(await call.body(app.settings))
    handle = _judge(app, call, body.model)
    texts = [document if isinstance(document, str) else document.text for document in body.documents]
    check_choices(len(texts), app.settings, "documents")
    public_id, _ = app.ids(call, None)
    call.watch(app.watch)
    found = await handle.score(body.query, texts)
    order = sorted(range(len(texts)), key=lambda index: -found[index].value)[: body.top_n or None]
    results: list[dict[str, Any]] = [
        {
            "index": index,
            "relevance_score": found[index].value,
            **({} if body.return_documents is False else {"document": {"text": texts[index]}}),
        }
        for index in order
    ]
    model = body.model or handle.name
    await call.answer(
        encode(
            {"id": call.named(f"rerank-{public_id}"), "model": model, "results": results, "usage": _usage(call, found)}
        )
    )


async def classify(app: App, call: Call) -> None:
    """Decode, classify, answer with the likeliest label and the probabilities of all, in the model's order."""
    body = decode_classify(await call.body(app.settings))
    handle = _judge(app, call, body.model)
    prompts = parse_prompts(body.input, "input")
    check_choices(len(prompts), app.settings, "input")
    public_id, _ = app.ids(call, None)
    call.watch(app.watch)
    found = await handle.classify(prompts)
    data = [
        {
            "index": index,
            "label": one.label,
            "probs": list(one.probabilities.values()),
            "num_classes": len(one.probabilities),
            "labels": list(one.probabilities),
        }
        for index, one in enumerate(found)
    ]
    await call.answer(
        encode(
            {
                "id": call.named(f"classify-{public_id}"),
                "object": "list",
                "created": int(time.time()),
                "model": body.model or handle.name,
                "data": data,
                "usage": _usage(call, found),
            }
        )
    )


def _judge(app: App, call: Call, name: str | None) -> Judges:
    handle = app.find_base(call, name, "can neither score nor classify")
    if not isinstance(handle, Judges):
        raise UnsupportedFeature(f"the model {handle.name!r} neither scores nor classifies here", param="model")
    return handle


def _pairs(first: str | list[str], second: str | list[str]) -> list[tuple[str, str]]:
    """Return the pairs to be scored: one text against each, or as many against as many.

    Raises:
        InvalidArgument: There are none, or they do not pair up.
    """
    ones = [first] if isinstance(first, str) else first
    others = [second] if isinstance(second, str) else second
    for param, texts in (("text_1", ones), ("text_2", others)):
        if not texts:
            raise InvalidArgument(f"{param} must not be empty", param=param)
    if len(ones) == 1:
        return [(ones[0], other) for other in others]
    if len(ones) != len(others):
        message = f"text_1 has {len(ones)} texts and text_2 {len(others)}; give one text_1, or as many of both"
        raise InvalidArgument(message, param="text_1")
    return list(zip(ones, others, strict=True))


def _usage(call: Call, found: Sequence[Score] | Sequence[Classification]) -> dict[str, int]:
    tokens = sum(one.usage.prompt_tokens for one in found)
    call.usage = Usage(prompt_tokens=tokens, completion_tokens=0)
    return {"prompt_tokens": tokens, "total_tokens": tokens}
