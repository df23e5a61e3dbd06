"""Hold what is private of Ray Data: read from Ray 2.54 to 2.61, checked on 2.60."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Final, cast

import pyarrow as pa

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
