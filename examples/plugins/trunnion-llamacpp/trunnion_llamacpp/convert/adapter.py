"""Convert a LoRA adapter in PEFT's format to a GGUF file."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np

from .model import architecture, heads
from .names import gguf_module, rotated
from .problem import ConversionError, read_json
from .tensors import read_tensors

_NAME: Final = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
_REFUSED: Final = (
    "use_dora",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "trainable_token_indices",
)
"""Settings that change what the two matrices mean; GGUF cannot say them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Hold what an adapter must know of its model."""

    arch: str
    heads: int
    kv_heads: int

    @classmethod
    def of_folder(cls, model: Path) -> Self:
        """Read it from a model's folder."""
        config = read_json(model / "config.json")
        count, shared = heads(config)
        return cls(arch=architecture(config), heads=count, kv_heads=shared)

    @classmethod
    def of_metadata(cls, meta: Callable[[str], str | None]) -> Self:
        """Read it from a GGUF file's metadata; ``meta`` returns a value as text."""
        arch = meta("general.architecture") or ""
        count = int(meta(f"{arch}.attention.head_count") or 0)
        return cls(arch=arch, heads=count, kv_heads=int(meta(f"{arch}.attention.head_count_kv") or count))


def convert_adapter(folder: Path, file: Path, shape: Shape) -> None:
    """Write a LoRA adapter to a GGUF file, in float32.

    Raises:
        FileNotFoundError: A file of the adapter is missing.
        ConversionError: It is no LoRA, uses what GGUF cannot say, or is of another kind of model.
    """
    import gguf

    if shape.arch not in ("llama", "qwen2"):
        raise ConversionError(f"adapters of {shape.arch} models cannot be converted here; give a GGUF file")
    config = read_json(folder / "adapter_config.json")
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        raise FileNotFoundError(f"there is no {weights}")
    alpha = _alpha(config)
    part = file.with_name(file.name + ".part")
    writer = gguf.GGUFWriter(part, shape.arch)
    try:
        writer.add_type("adapter")
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, alpha)
        for name, tensor in read_tensors([weights]):
            made, values = _translated(name, tensor, shape)
            writer.add_tensor(made, np.ascontiguousarray(values, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _alpha(config: dict[str, Any]) -> float:
    """Return alpha as llama.cpp means it, which divides it by the rank."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ConversionError(f"it is an adapter of kind {kind}; LORA can be converted")
    for name in _REFUSED:
        if config.get(name):
            raise ConversionError(f"it sets {name}, which GGUF cannot say")
    if config.get("bias", "none") != "none":
        raise ConversionError("it trains biases, which GGUF cannot say")
    alpha, rank = float(config["lora_alpha"]), int(config["r"])
    return alpha * math.sqrt(rank) if config.get("use_rslora") else alpha


def _translated(name: str, tensor: Any, shape: Shape) -> tuple[str, Any]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise ConversionError(f"tensor {name} is no LoRA matrix of a linear layer")
    module, side = gguf_module(match[1]), match[2]
    turned = {"attn_q": shape.heads, "attn_k": shape.kv_heads}.get(module.rpartition(".")[2])
    if side == "B" and turned and shape.arch == "llama":
        tensor = rotated(tensor, turned)
    return f"{module}.weight.lora_{side.lower()}", tensor
