"""Define what an engine plugin is asked for ``engine="auto"``, and what it answers. All of it is light."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

_WEIGHTS: Final = (".safetensors", ".bin", ".gguf", ".pt")
_VISIBLE: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Say what hardware an engine will find: logical CPUs and GPUs, of this machine or of a cluster's nodes."""

    cpus: int
    gpus: int

    @classmethod
    def here(cls) -> Self:
        """Look at this machine, without a GPU library: the drivers' folders, less what the environment hides."""
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return cls(cpus=cpus, gpus=_visible(_nvidia() or _amd()))


def _nvidia() -> int:
    folder = Path("/proc/driver/nvidia/gpus")
    listed = len(list(folder.iterdir())) if folder.is_dir() else 0
    return listed or len([device for device in Path("/dev").glob("nvidia*") if device.name[6:].isdigit()])


def _amd() -> int:
    nodes = Path("/sys/class/kfd/kfd/topology/nodes").glob("*/gpu_id")
    return sum(node.read_text(encoding="ascii").strip() not in ("", "0") for node in nodes)


def _visible(there: int) -> int:
    for name in _VISIBLE:
        value = os.environ.get(name)
        if value is not None:
            shown = [entry for entry in value.split(",") if entry.strip() not in ("", "-1", "NoDevFiles")]
            return min(there, len(shown))
    return there


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """Say what can be read of a model without loading it.

    Attributes:
        reference: What the user wrote.
        local: Whether its files lie on this machine; nothing but ``reference`` is known otherwise.
        architectures: Of its ``config.json``, such as ("LlamaForCausalLM",).
        model_type: Of its ``config.json``, such as "llama".
        quantization: Method that its weights are quantized with; empty for none.
        weights: Suffixes of its weight files, such as {".safetensors"}.
    """

    reference: str
    local: bool = False
    architectures: tuple[str, ...] = ()
    model_type: str = ""
    quantization: str = ""
    weights: frozenset[str] = frozenset()

    @property
    def generates(self) -> bool:
        """Tell whether it generates text, as far as its architectures say; True where they are not known."""
        kinds = ("ForCausalLM", "ForConditionalGeneration", "LMHeadModel")
        return not self.architectures or any(name.endswith(kinds) for name in self.architectures)

    @classmethod
    def of(cls, reference: str) -> Self:
        """Read what lies there. A reference that is no folder of this machine's gives its name alone."""
        folder = Path(reference).expanduser()
        if "://" in reference or not folder.exists():
            return cls(reference=reference)
        if folder.is_file():
            return cls(reference=reference, local=True, weights=frozenset({folder.suffix}))
        weights = frozenset(file.suffix for file in folder.iterdir() if file.suffix in _WEIGHTS)
        config = _config(folder / "config.json")
        quantization = config.get("quantization_config") or {}
        return cls(
            reference=reference,
            local=True,
            architectures=tuple(config.get("architectures") or ()),
            model_type=str(config.get("model_type") or ""),
            quantization=str(quantization.get("quant_method") or "") if isinstance(quantization, dict) else "",
            weights=weights,
        )


def _config(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # the engine that loads the model says what is wrong with it
        return {}
    return read if isinstance(read, dict) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineQuestion:
    """Ask a plugin whether its engine suits: the model (None where none was named), the hardware, the settings."""

    model: ModelFacts | None
    machine: Machine
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suitability:
    """Answer it. Of all engines the highest score is chosen; 0 means that it cannot be, or only where it is named.

    The scale: 100 for hardware the engine is made for, 50 for hardware it runs well on, 20 for what works.
    ``reason`` is half a sentence for people, such as "its GPU build is installed, and a GPU is here".
    """

    score: int
    reason: str
