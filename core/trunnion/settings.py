"""The base of all settings: frozen, and a key that is none of them is refused with the nearest one that is."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

UNKNOWN: Final = "extra_forbidden"
"""Pydantic's type of the error that a key is none of a model's."""


class Settings(BaseModel):
    """Base of settings that are written by hand, in Python or in a file: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    @model_validator(mode="wrap")
    @classmethod
    def _suggest(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            own = error.errors(include_url=False)
            if not any(one["type"] == UNKNOWN and len(one["loc"]) == 1 for one in own):
                raise
            told = [_with_hint(cls, one) for one in own]
        raise ValidationError.from_exception_data(cls.__name__, told)


def hint(key: str, known: Sequence[str], others: str = "settings: ") -> str:
    """Return which setting a key that is none of those known may have meant, or else all there are."""
    near = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"{others}{', '.join(known) or 'none'}"


def unknown_setting(key: str, known: Sequence[str]) -> str:
    """Return what to say of a key that is none of those known."""
    return f"there is no such setting; {hint(key, known, 'there are: ')}"


def _with_hint(model: type[BaseModel], one: Any) -> InitErrorDetails:
    message = one["msg"]
    if one["type"] == UNKNOWN and len(one["loc"]) == 1:
        message = unknown_setting(str(one["loc"][0]), list(model.model_fields))
    return InitErrorDetails(type=PydanticCustomError(one["type"], message), loc=one["loc"], input=one["input"])
