"""Turn a forced tool choice into an output format that the engine can hold the model to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument, TrunnionError
from trunnion.formats import JsonSchema
from trunnion.plugin import NoConfig
from trunnion.requests import GenerateRequest
from trunnion.stage import StageContext

from ._choice import tool_choice, tool_function

_NO_PARAMETERS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


class ToolChoiceStage:
    """Demand JSON where the request demands calls: "required", or a named function.

    A named function's output is its arguments alone; "required" is an array of objects with name and arguments.
    The ``tool_calls`` stage reads both back. Requests that leave the choice to the model pass unchanged.
    """

    def __init__(self, context: StageContext, config: NoConfig) -> None:
        """Take nothing: the request says it all."""

    def process(self, items: Sequence[GenerateRequest]) -> list[GenerateRequest | TrunnionError]:
        """Return each request, with an output format if it forces calls, or the error of its choice."""
        return [self._one(item) for item in items]

    def _one(self, request: GenerateRequest) -> GenerateRequest | TrunnionError:
        try:
            mode, name = tool_choice(request)
            if mode not in ("required", "named"):
                return request
            if request.output_format is not None:
                msg = (
                    f"tool_choice {request.tool_choice!r} fixes the output, so it cannot go together with an "
                    f"output format; drop one of them"
                )
                return InvalidArgument(msg, param="tool_choice")
        except TrunnionError as error:
            return error
        functions = [tool_function(tool) for tool in request.tools]
        if name is not None:
            schema = next(_parameters(function) for function in functions if function.get("name") == name)
        else:
            schema = _required(functions, parallel=request.parallel_tool_calls is not False)
        return request.with_(output_format=JsonSchema(schema=schema, name=name or "tool_calls"))


def _parameters(function: Mapping[str, Any]) -> Mapping[str, Any]:
    return function.get("parameters") or _NO_PARAMETERS


def _required(functions: Sequence[Mapping[str, Any]], *, parallel: bool) -> dict[str, Any]:
    """Return the schema of an array of calls; definitions within parameters move to the top, where they resolve."""
    shared: dict[str, Any] = {}
    calls = []
    for function in functions:
        parameters = dict(_parameters(function))
        for key in ("$defs", "definitions"):
            shared.setdefault(key, {}).update(parameters.pop(key, None) or {})
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"type": "string", "enum": [function.get("name")]}, "arguments": parameters},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls} if len(calls) > 1 else calls[0]}
    if not parallel:
        schema["maxItems"] = 1
    schema.update({key: value for key, value in shared.items() if value})
    return schema
