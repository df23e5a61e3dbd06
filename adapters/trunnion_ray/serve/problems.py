"""Find everything that is wrong with settings, each with its place, where pydantic alone would tell less."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from trunnion.errors import TrunnionError
from trunnion.registry import plain_message
from trunnion.settings import UNKNOWN, unknown_setting

from .yaml_lines import Place


@dataclass(frozen=True, slots=True)
class Problem:
    """Say what is wrong, and where."""

    place: Place
    message: str


def find_problems(model: type[BaseModel], data: Any, place: Place = ()) -> tuple[list[Problem], Any]:
    """Validate data; return what is wrong with it, and the value that was made where nothing is.

    Keys that the model does not know are told, at any depth, whether the model would refuse or ignore them.

    Args:
        model: What the data should be.
        data: Values as YAML gives them.
        place: Where they stand in the file.
    """
    if not isinstance(data, Mapping):
        return [Problem(place, f"must be a mapping of settings, not {_kind(data)}")], None
    found = list(_unknown(model, data, place))
    value = None
    try:
        value = model.model_validate(data)
    except ValidationError as error:
        found += [
            Problem((*place, *_there(one["loc"], data, one["type"])), _said(one))
            for one in error.errors()
            if one["type"] != UNKNOWN and not _follows(one, error)
        ]
    except TrunnionError as error:
        found.append(told(error, model, place))
    return found, None if found else value


def told(error: TrunnionError, model: type[BaseModel], place: Place) -> Problem:
    """Return an error as a problem of a model's settings at a place; of one of them, where the error names it."""
    parts = (error.param or "").split(".")
    return Problem((*place, *parts) if parts[0] in model.model_fields else place, error.message)


def _unknown(model: type[BaseModel], data: Any, place: Place) -> Iterator[Problem]:
    if not isinstance(data, Mapping) or model.model_config.get("extra") == "allow":
        return
    fields = {known: field for name, field in model.model_fields.items() for known in (name, field.alias) if known}
    for key, value in data.items():
        if key not in fields:
            yield Problem((*place, str(key)), unknown_setting(str(key), list(fields)))
            continue
        yield from _inside(fields[key].annotation, value, (*place, key))


def _inside(annotation: Any, value: Any, place: Place) -> Iterator[Problem]:
    """Look into what a field may hold: a model, a sequence of models, or a mapping to them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield from _unknown(annotation, value, place)
        return
    origin, arguments = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if not arguments:
        return
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from _inside(arguments[-1], item, (*place, str(key)))
    elif isinstance(origin, type) and issubclass(origin, Sequence):
        if isinstance(value, Sequence) and not isinstance(value, str):
            for index, item in enumerate(value):
                yield from _inside(arguments[0], item, (*place, index))
    else:  # one of several: what the nearest one says
        yield from min((list(_inside(one, value, place)) for one in arguments if one is not type(None)), key=len)


def _there(loc: Sequence[str | int], data: Any, kind: str) -> Place:
    """Return the part of pydantic's place that is in the data: it also names the members of unions."""
    place: list[str | int] = []
    for part in loc:
        keys = data if isinstance(data, Mapping) else range(len(data)) if isinstance(data, list | tuple) else ()
        if part not in keys:
            return (*place, part) if kind == "missing" and part == loc[-1] else tuple(place)
        data = data[part]
        place.append(part)
    return tuple(place)


def _follows(one: Any, error: ValidationError) -> bool:
    """Tell whether an error is that a sequence is too short, without the items that are wrong themselves."""
    loc = one["loc"]
    return one["type"] == "too_short" and any(
        len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in error.errors()
    )


def _said(error: Any) -> str:
    if error["type"] == "missing":
        return "is required"
    return plain_message(str(error["msg"]))


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", type(None): "nothing"}
    return names.get(type(value), type(value).__name__)
