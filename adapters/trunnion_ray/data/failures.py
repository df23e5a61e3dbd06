"""Carry errors between rows, Ray's exceptions and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trunnion.errors import InvalidArgument, TrunnionError

RowFunction = Callable[[dict[str, Any]], Mapping[str, Any]]
"""What callers give as preprocess and postprocess."""


def row_failure(where: str, error: Exception) -> TrunnionError:
    """Return the error of a row on which the caller's own function failed; an error of the tree stays itself.

    ``code`` tells the function (``preprocess_failed``, ``postprocess_failed``), ``details`` the exception's type.
    """
    if isinstance(error, TrunnionError):
        return error
    name = type(error).__name__
    failure = InvalidArgument(
        f"{where} raised {name}: {error}", param=where, code=f"{where}_failed", details={"exception": name}
    )
    failure.__cause__ = error
    return failure


def find_error(error: BaseException) -> TrunnionError | None:
    """Return the Trunnion error inside what Ray raised, or None.

    Ray wraps what a job raises; this looks through ``.cause`` and the chain of causes::

        try:
            dataset.materialize()
        except Exception as error:
            ours = find_error(error)
    """
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        cause = getattr(one, "cause", None)
        if isinstance(one, TrunnionError) and not isinstance(cause, TrunnionError):
            return one
        queue += [cause if isinstance(cause, BaseException) else None, one.__cause__, one.__context__]
    return None
