"""Define the bodies that ask for scores and labels."""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from .decode import decoder
from .requests import TokenId

Texts = Annotated[list[str], Meta(min_length=1)]


class ScoreBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/v1/score`` body, as vLLM has it."""

    text_1: str | Texts
    text_2: str | Texts
    model: str | None = None
    user: str | None = None


class RerankDocument(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a document that is an object."""

    text: str


class RerankBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/v1/rerank`` body, as Jina and Cohere have it; ``top_n`` 0 is all, as with vLLM."""

    query: str
    documents: Annotated[list[str | RerankDocument], Meta(min_length=1)]
    model: str | None = None
    top_n: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    return_documents: bool | None = None
    user: str | None = None


class ClassifyBody(Struct, forbid_unknown_fields=True, kw_only=True):
    """Hold a ``/v1/classify`` body, as vLLM has it."""

    input: str | list[str | TokenId | list[TokenId]]
    model: str | None = None
    user: str | None = None


decode_score: Final = decoder(ScoreBody)
decode_rerank: Final = decoder(RerankBody)
decode_classify: Final = decoder(ClassifyBody)
