"""Read traces: one JSON object per line, in order of arrival."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field, ValidationError

from trunnion import PluginConfig
from trunnion.errors import InvalidArgument


class TraceRequest(PluginConfig):
    """Hold one request of a trace: when it comes, and how many tokens it has."""

    arrival: float = Field(ge=0, description="Seconds since the beginning.")
    prompt_tokens: int = Field(ge=1, description="Tokens of the prompt.")
    output_tokens: int = Field(ge=1, description="Tokens that are generated.")
    group: str | None = Field(None, description="Requests of one group begin with the same tokens.")
    group_tokens: int | None = Field(None, ge=0, description="How many tokens they share; None: the whole prompt.")
    session: str | None = Field(None, description="Conversation, for routers that keep one together.")
    adapter: str | None = Field(None, description="LoRA adapter.")
    priority: int = Field(0, description="Lower runs first.")


def read_trace(path: str | Path) -> list[TraceRequest]:
    """Return the requests of a JSONL file.

    Raises:
        InvalidArgument: A line is no such request, the file is empty, or a request comes before the one above it.
    """
    made = list(parse_trace(Path(path).read_text(encoding="utf-8").splitlines(), str(path)))
    if not made:
        raise InvalidArgument(f"{path} has no requests; give one JSON object per line", param="trace")
    return made


def parse_trace(lines: Iterable[str], where: str) -> Iterator[TraceRequest]:
    """Yield the request of each line that is not blank."""
    before = 0.0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            request = TraceRequest(**json.loads(line))
        except ValidationError as error:
            # An unknown key may be why another one is missing, and says more.
            first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
            place = ".".join(map(str, first["loc"]))
            said = _unknown(place) if first["type"] == "extra_forbidden" else f"{place}: {first['msg']}"
            raise InvalidArgument(f"{where}, line {number}: {said}", param="trace") from error
        except (ValueError, TypeError) as error:
            raise InvalidArgument(f"{where}, line {number} is no JSON object: {error}", param="trace") from error
        if request.arrival < before:
            message = f"{where}, line {number}: arrival {request.arrival:g} comes before the line above; sort the trace"
            raise InvalidArgument(message, param="trace")
        before = request.arrival
        yield request


def _unknown(key: str) -> str:
    near = difflib.get_close_matches(key, TraceRequest.model_fields, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"keys: {', '.join(TraceRequest.model_fields)}"
    return f"a request has no {key!r}; {hint}"
