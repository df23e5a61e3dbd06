"""Turn rows into requests of any task, and answers and errors into the output columns of that task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from .completion import Completion
from .errors import InvalidArgument, TrunnionError
from .pooling import PoolingAnswer, PoolingRequest, Task
from .requests import GenerateRequest, TextPrompt
from .row_columns import OUTPUT_COLUMNS, completion_to_columns, error_columns, usage_column
from .row_sampling import plain
from .rows import RowOptions, read_adapter, read_prompt, row_to_request

RowRequest = GenerateRequest | PoolingRequest
RowAnswer = Completion | PoolingAnswer

_COUNTED: Final = ("num_input_tokens", "usage", "error")
TASK_COLUMNS: Final[Mapping[Task, tuple[str, ...]]] = {
    "generate": OUTPUT_COLUMNS,
    "embed": ("embedding", *_COUNTED),
    "classify": ("predicted_label", "label_names", "label_probabilities", *_COUNTED),
    "score": ("scores", *_COUNTED),
}
"""The output columns of each task."""
_GENERATING: Final = ("sampling_params", "tools", "tool_choice", "response_format")


def task_request(row: Mapping[str, Any], options: RowOptions) -> RowRequest:
    """Turn a row into a request of the options' task.

    A row to embed or to classify holds a prompt as one that generates does. A row to score holds ``query`` and
    ``texts``: a list, JSON text of one, or a single text.

    Raises:
        InvalidArgument: ``param`` names the column, and the place in it.
    """
    task, columns = options.task, options.columns
    if task == "generate":
        return row_to_request(row, options)
    for field in _GENERATING:
        name = getattr(columns, field)
        if row.get(name) is not None:
            message = f"{name} is for rows that generate, and this job's task is {task!r}; leave it out"
            raise InvalidArgument(message, param=name)
    adapter = read_adapter(row.get(columns.model), options)
    if adapter is not None and task != "embed":
        message = f"{columns.model} names the adapter {adapter!r}, and adapters cannot {task}; leave it out"
        raise InvalidArgument(message, param=columns.model)
    if task == "score":
        query = row.get(columns.query)
        if not isinstance(query, str):
            message = f"{columns.query} must be the text that {columns.texts} are held against, not {query!r}"
            raise InvalidArgument(message, param=columns.query)
        return PoolingRequest(task=task, prompt=TextPrompt(text=query), texts=_texts(row, columns.texts))
    prompt, media = read_prompt(row, options)
    if media:
        message = f"{columns.messages} hold media, which this job's task {task!r} does not take; leave them out"
        raise InvalidArgument(message, param=columns.messages)
    return PoolingRequest(task=task, prompt=prompt, dimensions=options.dimensions, adapter=adapter)


def _texts(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = row.get(where)
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return (value,)
        try:
            value = json.loads(value)
        except ValueError:
            return (value,)
    texts = plain(value)
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        message = f"{where} must be a text or a list of texts that is not empty, not {value!r:.80}"
        raise InvalidArgument(message, param=where)
    return tuple(texts)


def answer_columns(answer: RowAnswer) -> dict[str, Any]:
    """Return the output columns of an answered row: always all of its task's, so that blocks share a schema."""
    if isinstance(answer, Completion):
        return completion_to_columns(answer)
    made: dict[str, Any]
    if answer.task == "embed":
        made = {"embedding": list(answer.vector)}
    elif answer.task == "score":
        made = {"scores": list(answer.scores)}
    else:
        probabilities = answer.probabilities
        made = {
            "predicted_label": max(probabilities, key=probabilities.__getitem__, default=None),
            "label_names": list(probabilities),
            "label_probabilities": list(probabilities.values()),
        }
    usage = answer.usage
    return {**made, "num_input_tokens": usage.prompt_tokens, "usage": usage_column(usage), "error": None}


def failed_columns(error: TrunnionError, task: Task = "generate") -> dict[str, Any]:
    """Return the output columns of a row that failed: an ``error``, nothing else, counts of zero."""
    columns = error_columns(error)
    return columns if task == "generate" else {name: columns.get(name) for name in TASK_COLUMNS[task]}


def dead_letter(row: Mapping[str, Any], task: Task = "generate") -> dict[str, Any]:
    """Return a row that failed as it can be run again: what came in, and the error, without empty output columns."""
    answers = frozenset(TASK_COLUMNS[task]) - {"error"}
    return {name: value for name, value in row.items() if name not in answers}
