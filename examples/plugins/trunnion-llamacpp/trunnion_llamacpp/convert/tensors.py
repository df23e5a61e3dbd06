"""Read tensors from safetensors files, bfloat16 included, without a framework."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from .problem import ConversionError

_TYPES: Final = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def read_tensors(files: list[Path]) -> Iterator[tuple[str, Any]]:
    """Yield names and float32 or float16 arrays, one at a time, file by file.

    Format: https://github.com/huggingface/safetensors - the header's length in 8 bytes, the header as JSON, the data.

    Raises:
        ConversionError: A file is broken, or holds a type of number that is not floating point.
    """
    for file in files:
        try:
            data = np.memmap(file, dtype=np.uint8, mode="r")
            start = 8 + int.from_bytes(data[:8].tobytes(), "little")
            header = json.loads(data[8:start].tobytes())
        except (OSError, ValueError) as error:
            raise ConversionError(f"{file} is no safetensors file: {error}") from error
        for name, entry in header.items():
            if name != "__metadata__":
                yield name, _array(file, data, start, name, entry)


def _array(file: Path, data: Any, start: int, name: str, entry: dict[str, Any]) -> Any:
    kind = entry["dtype"]
    if kind not in _TYPES:
        raise ConversionError(f"{file}: tensor {name} is of type {kind}; {', '.join(_TYPES)} can be converted")
    begin, end = entry["data_offsets"]
    flat = data[start + begin : start + end].view(_TYPES[kind])
    if kind == "BF16":  # the upper half of a float32
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    return flat.reshape(entry["shape"])


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a model's folder. Raises FileNotFoundError if there are none."""
    found = sorted(folder.glob("model*.safetensors"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no model*.safetensors")
    return found
