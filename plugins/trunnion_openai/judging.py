"""Read scores and labels as vLLM's server writes them, and say so where an endpoint has no such API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from trunnion.engine import Classification, Score
from trunnion.errors import InternalError, NotFound, UnsupportedFeature
from trunnion.events import Usage

from .embedding import shares
from .errors import said_within
from .wire import LabelBody, LabelItem, ScoreBody, decode, label_decoder, score_decoder

_NO_SUCH_API: Final = (404, 405, 501)


@contextmanager
def missing_api(path: str, protocol: str) -> Iterator[None]:
    """Raise :class:`UnsupportedFeature` where the endpoint does not know the path."""
    try:
        yield
    except (NotFound, UnsupportedFeature) as error:
        if type(error) not in (NotFound, UnsupportedFeature) or error.details.get("status") not in _NO_SUCH_API:
            raise
        message = f"the endpoint has no {path}, or its model is none for it: {error}; vLLM's server has it"
        raise UnsupportedFeature(message, param="model", details={**error.details, "feature": protocol}) from error


def read_scores(data: bytes, texts: Sequence[Any], where: str) -> list[Score]:
    """Return the scores in the order of the texts. Raises :class:`InternalError` for another answer."""
    items, counts = _items(decode(score_decoder, data, where), texts, where)
    return [Score(value=item.score, usage=usage) for item, usage in zip(items, counts, strict=True)]


def read_classifications(data: bytes, values: Sequence[Any], where: str) -> list[Classification]:
    """Return the probabilities in the order of the inputs. Raises :class:`InternalError` for another answer."""
    items, counts = _items(decode(label_decoder, data, where), values, where)
    return [
        Classification(probabilities=_named(item, where), usage=usage)
        for item, usage in zip(items, counts, strict=True)
    ]


def _items(body: Any, values: Sequence[Any], where: str) -> tuple[list[Any], list[Usage]]:
    assert isinstance(body, ScoreBody | LabelBody)
    if body.error is not None and body.data is None:
        raise said_within(body.error, where=where)
    items: list[Any] = list(body.data or [])
    if len(items) != len(values):
        raise InternalError(f"{where} answered {len(values)} inputs with {len(items)} results")
    if all(item.index is not None for item in items):
        items.sort(key=lambda item: item.index)
    tokens = 0 if body.usage is None else body.usage.prompt_tokens or 0
    counts = shares(tokens, [len(value) for value in values])
    return items, [Usage(prompt_tokens=count, completion_tokens=0) for count in counts]


def _named(item: LabelItem, where: str) -> dict[str, float]:
    if not item.probs or (item.labels is not None and len(item.labels) != len(item.probs)):
        raise InternalError(f"{where} answered with {len(item.probs)} probabilities for its labels")
    names = item.labels or [f"LABEL_{place}" for place in range(len(item.probs))]
    if item.labels is None and item.label is not None:
        names[max(range(len(item.probs)), key=item.probs.__getitem__)] = item.label
    return dict(zip(names, item.probs, strict=True))
