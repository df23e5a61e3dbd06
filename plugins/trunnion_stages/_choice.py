"""Read a request's tool choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from trunnion.errors import InvalidArgument
from trunnion.requests import GenerateRequest

Mode = Literal["none", "auto", "required", "named"]


def tool_choice(request: GenerateRequest) -> tuple[Mode, str | None]:
    """Return what the request wants called: the mode, and the function's name where one is named.

    Raises:
        InvalidArgument: The choice is malformed, or names a function that is not among the tools.
    """
    choice = request.tool_choice
    if choice is None or choice == "auto":
        return ("auto" if request.tools else "none"), None
    if choice == "none":
        return "none", None
    if not request.tools:
        msg = f"tool_choice is {choice!r}, but the request has no tools; give tools, or leave tool_choice out"
        raise InvalidArgument(msg, param="tool_choice")
    if choice == "required":
        return "required", None
    name = _named(choice)
    known = [tool_function(tool).get("name") for tool in request.tools]
    if name not in known:
        msg = f"tool_choice names {name!r}, which is not among the tools: {', '.join(map(str, known))}"
        raise InvalidArgument(msg, param="tool_choice")
    return "named", name


def _named(choice: object) -> str:
    if isinstance(choice, Mapping):
        name = tool_function(choice).get("name")
        if isinstance(name, str):
            return name
    msg = (
        f"tool_choice must be 'auto', 'none', 'required' or "
        f"{{'type': 'function', 'function': {{'name': ...}}}}, not {choice!r}"
    )
    raise InvalidArgument(msg, param="tool_choice")


def tool_function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a tool's function, which may also stand without the wrapping."""
    function = tool.get("function", tool)
    return function if isinstance(function, Mapping) else {}
