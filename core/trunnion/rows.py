"""Map rows to requests, and completions back to columns: one mapping for every way to run a batch.

Input columns (names can be changed, see :class:`RowColumns`): the prompt as ``messages``, ``prompt_token_ids`` or
``prompt`` (text that is sent as it stands); ``sampling_params``, ``model`` (a LoRA adapter's name), ``tools``,
``tool_choice``, ``response_format`` and ``chat_template_kwargs``. A null counts as absent, because Arrow fills the
columns that only other rows have. Structured columns may also hold JSON text, which keeps nulls that Arrow adds out.
Messages may hold the media parts of :mod:`trunnion.media`: URLs, data URLs, bytes.

Output columns are :data:`OUTPUT_COLUMNS`, always all of them, so that every block has the same schema.
"""

from __future__ import annotations

import json
import marshal
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .errors import InvalidArgument
from .formats import JsonObject, JsonSchema, OutputFormat
from .media import read_media
from .pooling import TASKS, Task
from .requests import Delivery, GenerateRequest, MediaPart, MessagesPrompt, Prompt, TextPrompt, TokensPrompt
from .row_columns import OUTPUT_COLUMNS, completion_to_columns, error_columns, error_from_column
from .row_sampling import RowSampling, merge_sampling, parse_sampling, plain

_CACHE_SIZE: Final = 4096

__all__ = [
    "OUTPUT_COLUMNS",
    "RowColumns",
    "RowOptions",
    "completion_to_columns",
    "error_columns",
    "error_from_column",
    "row_to_request",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowColumns:
    """Name the input columns; an empty name switches one off."""

    messages: str = "messages"
    prompt: str = "prompt"
    prompt_token_ids: str = "prompt_token_ids"  # noqa: S105 - the name of a column
    sampling_params: str = "sampling_params"
    model: str = "model"
    tools: str = "tools"
    tool_choice: str = "tool_choice"
    response_format: str = "response_format"
    chat_template_kwargs: str = "chat_template_kwargs"
    query: str = "query"
    texts: str = "texts"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowOptions:
    """Say how rows become requests; make one per job, it remembers the sampling dictionaries it has seen.

    Attributes:
        columns: Names of the input columns.
        sampling: Sampling parameters of rows that do not set them; a row's own keys win, one by one.
        adapter: Adapter of rows without a model; None for the base model.
        base_models: Names in the model column that mean the base model.
        chat_template_kwargs: Variables of the chat template; a row's own keys win.
        task: What is asked of the model; see :mod:`trunnion.row_tasks` for all but "generate".
        dimensions: Length of embeddings; None for the model's own.
        delivery: "final" for batches, "delta" where progress is watched by token.

    Raises:
        InvalidArgument: ``sampling`` has an unknown key or a wrong value, or is of another task; so is ``dimensions``.
    """

    columns: RowColumns = field(default_factory=RowColumns)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    adapter: str | None = None
    base_models: frozenset[str] = frozenset()
    chat_template_kwargs: Mapping[str, Any] | None = None
    delivery: Delivery = "final"
    task: Task = "generate"
    dimensions: int | None = None
    _seen: dict[bytes, RowSampling] = field(default_factory=dict, init=False, repr=False, compare=False)
    _default: RowSampling = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the defaults where they are given, not at the first row."""
        if self.task not in TASKS:
            raise InvalidArgument(f"task must be one of {', '.join(TASKS)}, not {self.task!r}", param="task")
        if self.sampling and self.task != "generate":
            message = f"sampling is for the task 'generate', and this one is {self.task!r}; leave it out"
            raise InvalidArgument(message, param="sampling")
        if self.dimensions is not None and self.task != "embed":
            message = f"dimensions are for the task 'embed', and this one is {self.task!r}; leave them out"
            raise InvalidArgument(message, param="dimensions")
        object.__setattr__(self, "sampling", plain(dict(self.sampling)))
        object.__setattr__(self, "_default", parse_sampling(self.sampling, where="sampling"))

    def sampling_of(self, value: Any) -> RowSampling:
        """Return the sampling of a row's value; equal values are converted once."""
        if value is None:
            return self._default
        where = self.columns.sampling_params
        values = _structured(value, where)
        if not isinstance(values, dict):
            raise _wrong(where, "an object of sampling parameters", value)
        try:
            key = marshal.dumps(values, 2)  # version 2 has no references: equal values give equal bytes
        except ValueError:  # an object that parse_sampling refuses by name
            return parse_sampling(merge_sampling(self.sampling, values), where=where)
        found = self._seen.get(key)
        if found is None:
            found = parse_sampling(merge_sampling(self.sampling, values), where=where)
            if len(self._seen) >= _CACHE_SIZE:
                self._seen.clear()
            self._seen[key] = found
        return found


_DEFAULT_OPTIONS: Final = RowOptions()


def row_to_request(row: Mapping[str, Any], options: RowOptions = _DEFAULT_OPTIONS) -> GenerateRequest:
    """Turn a row into a request.

    Of several prompt columns with a value, ``messages`` wins over ``prompt_token_ids`` over ``prompt``, so that a
    column of the input may share a name with one that was made of it.

    Raises:
        InvalidArgument: ``param`` names the column, and the place in it.
    """
    columns, get = options.columns, row.get
    prompt, media = read_prompt(row, options)
    sampling = options.sampling_of(get(columns.sampling_params))
    output_format = sampling.output_format
    wanted = get(columns.response_format)
    if wanted is not None:
        demanded = _response_format(wanted, columns.response_format)
        if demanded is not None and output_format is not None:
            message = f"{columns.response_format} and {columns.sampling_params} both demand an output format; keep one"
            raise InvalidArgument(message, param=columns.response_format)
        output_format = demanded or output_format
    tools, choice = get(columns.tools), get(columns.tool_choice)
    return GenerateRequest(
        prompt=prompt,
        sampling=sampling.params,
        media=media,
        tools=() if tools is None else _tools(tools, columns.tools),
        tool_choice=None if choice is None else _tool_choice(choice, columns.tool_choice),
        output_format=output_format,
        delivery=options.delivery,
        detokenize=sampling.detokenize,
        adapter=read_adapter(get(columns.model), options),
    )


def read_prompt(row: Mapping[str, Any], options: RowOptions) -> tuple[Prompt, tuple[MediaPart, ...]]:
    """Return a row's prompt and its media. Raises :class:`InvalidArgument` that names the column."""
    columns = options.columns
    messages = row.get(columns.messages)
    if messages is not None:
        made, media = _messages(messages, columns.messages)
        kwargs = row.get(columns.chat_template_kwargs)
        if kwargs is None and options.chat_template_kwargs is None:
            return MessagesPrompt(messages=made), media
        merged = {**(options.chat_template_kwargs or {}), **_object(kwargs, columns.chat_template_kwargs)}
        return MessagesPrompt(messages=made, chat_template_kwargs=merged), media
    ids = row.get(columns.prompt_token_ids)
    if ids is not None:
        ids = _structured(ids, columns.prompt_token_ids)
        if not isinstance(ids, list) or not ids or not all(type(item) is int and item >= 0 for item in ids):
            raise _wrong(columns.prompt_token_ids, "a list of token ids that is not empty", ids)
        return TokensPrompt(token_ids=ids), ()
    text = row.get(columns.prompt)
    if text is None:
        names = [name for name in (columns.messages, columns.prompt, columns.prompt_token_ids) if name]
        message = f"the row has no prompt: none of the columns {', '.join(names)} has a value"
        raise InvalidArgument(message, param=names[0] if names else None)
    if not isinstance(text, str):
        raise _wrong(columns.prompt, "a string", text)
    return TextPrompt(text=str(text)), ()


def _messages(value: Any, where: str) -> tuple[list[Any], tuple[MediaPart, ...]]:
    plain_text = isinstance(value, list) and all(type(m) is dict and type(m.get("content")) is str for m in value)
    messages = value if plain_text else _structured(value, where)
    if not isinstance(messages, list) or not messages:
        raise _wrong(where, "a list of messages that is not empty", value)
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _wrong(f"{where}[{index}]", "an object with role and content", message)
        if None in message.values():  # Arrow fills the fields that only other messages have
            messages = [{key: item for key, item in m.items() if item is not None} for m in messages]
            break
    if plain_text or not any(isinstance(m.get("content"), list) for m in messages):
        return messages, ()
    messages = [_with_parts(message) for message in messages]
    return messages, read_media(messages, where)


def _with_parts(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message without the nulls that Arrow adds to the parts of its content."""
    content = message.get("content")
    return {**message, "content": _without_nulls(content)} if isinstance(content, list) else message


def read_adapter(model: Any, options: RowOptions) -> str | None:
    """Return the adapter that a row's model names. Raises :class:`InvalidArgument` if it is no name."""
    if model is None:
        return options.adapter
    if not isinstance(model, str):
        raise _wrong(options.columns.model, "a name", model)
    return None if model in options.base_models else str(model)


def _structured(value: Any, where: str) -> Any:
    """Return plain JSON values of a structured column, which may hold JSON text."""
    if not isinstance(value, str):
        return plain(value)
    try:
        return json.loads(value)
    except ValueError as error:
        raise InvalidArgument(f"{where} is not valid JSON: {error}", param=where) from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _json_column(value: Any, where: str) -> Any:
    made = _structured(value, where)
    return made if isinstance(value, str) else _without_nulls(made)


def _object(value: Any, where: str) -> dict[str, Any]:
    made = {} if value is None else _json_column(value, where)
    if not isinstance(made, dict):
        raise _wrong(where, "an object", value)
    return made


def _tools(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    tools = _json_column(value, where)
    if not isinstance(tools, list):
        raise _wrong(where, "a list of tools", value)
    for index, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise _wrong(f"{where}[{index}]", 'like {"type": "function", "function": {"name": ...}}', tool)
    return tuple(tools)


def _tool_choice(value: Any, where: str) -> str | Mapping[str, Any]:
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        if value not in ("none", "auto", "required"):
            raise _wrong(where, "none, auto, required or a named function", value)
        return str(value)
    return _object(value, where)


def _response_format(value: Any, where: str) -> OutputFormat | None:
    wanted = _object(value, where)
    kind = wanted.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return JsonObject()
    if kind != "json_schema":
        raise _wrong(f"{where}.type", "text, json_object or json_schema", kind)
    holder = wanted.get("json_schema")
    schema = holder.get("schema") if isinstance(holder, dict) else None
    if not isinstance(holder, dict) or not isinstance(schema, dict):
        raise _wrong(f"{where}.json_schema.schema", "a JSON Schema", schema)
    return JsonSchema(schema=schema, name=str(holder.get("name", "response")), strict=holder.get("strict") is not False)


def _wrong(where: str, rule: str, value: object) -> InvalidArgument:
    text = repr(value)
    short = text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line's worth
    return InvalidArgument(f"{where} must be {rule}, not {short}", param=where)
