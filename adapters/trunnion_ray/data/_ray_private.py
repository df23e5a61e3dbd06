"""Hold what is private of Ray Data: for Ray 2.54 to 2.61, checked on 2.60; where it is missing, nothing is done."""

from __future__ import annotations

import contextlib
import importlib
import threading
from collections.abc import Sequence
from typing import Any, Final, cast

import pyarrow as pa
import ray
from ray.data import Dataset

try:
    from ray.data._internal.execution.execution_callback import ExecutionCallback
except ImportError:
    ExecutionCallback = object

_CONVERTERS: Final = ("ray.data._internal.tensor_extensions.arrow", "ray.air.util.tensor_extensions.arrow")


def to_arrow_array(values: Sequence[Any], name: str) -> pa.Array[Any]:
    """Return values as Ray Data itself would: tensors and, where Arrow has no type, pickled objects."""
    for module in _CONVERTERS:
        try:
            convert = importlib.import_module(module).convert_to_pyarrow_array
        except (ImportError, AttributeError):
            continue
        return cast("pa.Array[Any]", convert(list(values), name))
    return cast("pa.Array[Any]", pa.array(values))


_GRACE: Final = 10.0
"""Seconds an actor of a failed job has to stop its engine."""


class EndActors(ExecutionCallback):  # type: ignore[misc]
    """End the actors of a job that failed.

    Ray Data only drops their handles. The exception that reaches the caller holds on to them through its traceback,
    for as long as anyone holds the exception, and the engine with its memory would stay as long.
    """

    def __init__(self) -> None:
        self._pools: list[Any] = []
        self._actors: set[Any] = set()

    def before_execution_starts(self, executor: Any) -> None:
        """Find the pools of engines among the operators."""
        for operator in getattr(executor, "_topology", None) or ():
            pool = getattr(operator, "_actor_pool", None)
            if "BatchWorker" in getattr(operator, "name", "") and hasattr(pool, "_running_actors"):
                self._pools.append(pool)

    def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002 - Ray's signature
        """Take note of the actors: they are forgotten before the end is told."""
        for pool in self._pools:
            self._actors.update(pool._running_actors)  # noqa: SLF001
            self._actors.update(pool._pending_actors.values())  # noqa: SLF001

    def after_execution_succeeds(self, executor: Any) -> None:  # noqa: ARG002 - Ray's signature
        """Let the handles go, with which the actors end in peace."""
        self._pools.clear()
        self._actors.clear()

    def after_execution_fails(self, executor: Any, error: Exception) -> None:  # noqa: ARG002 - Ray's signature
        """Ask every actor to end, and kill those that do not."""
        actors, self._actors = self._actors, set()
        self._pools.clear()
        for actor in actors:
            with contextlib.suppress(Exception):
                actor.__ray_terminate__.remote()
        timer = threading.Timer(_GRACE, _kill, [actors])
        timer.daemon = True
        timer.start()


def _kill(actors: set[Any]) -> None:
    for actor in actors:
        with contextlib.suppress(Exception):
            ray.kill(actor)


def known_rows(dataset: Dataset) -> int | None:
    """Return the rows of a dataset where Ray knows them without running it, else None."""
    count = getattr(dataset, "_meta_count", None)
    if count is None:
        return None
    try:
        rows = count()
    except Exception:  # noqa: BLE001 - private, and a convenience
        return None
    return rows if isinstance(rows, int) else None


def constructed_before(dataset: Dataset) -> list[Any]:
    """Return the first constructor argument of every class that is mapped over a dataset, as far as can be seen."""
    found, seen, operators = [], set(), [getattr(getattr(dataset, "_logical_plan", None), "dag", None)]
    while operators:
        operator = operators.pop()
        if operator is None or id(operator) in seen:
            continue
        seen.add(id(operator))
        operators += getattr(operator, "input_dependencies", None) or ()
        found += list(getattr(operator, "fn_constructor_args", None) or ())[:1]
    return found


def end_actors_with_job(dataset: Dataset) -> None:
    """Have the engines' actors ended if the execution of a dataset fails."""
    classes = getattr(dataset.context, "custom_execution_callback_classes", None)
    if classes is not None and EndActors not in classes:
        classes.append(EndActors)
