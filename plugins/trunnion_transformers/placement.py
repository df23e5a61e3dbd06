"""Say what one replica takes, without importing torch."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Final, Literal

from trunnion.spec import Bundle, Resources

from .config import TransformersConfig

NVIDIA_DRIVER: Final = Path("/proc/driver/nvidia/version")
"""Exists where the kernel has NVIDIA's driver."""


def device_of(config: TransformersConfig) -> Literal["cpu", "cuda"]:
    """Return what the engine will run on; ``auto`` takes cuda where this machine has a driver and torch a GPU build."""
    if config.device != "auto":
        return config.device
    try:
        build = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "cpu"
    return "cuda" if "+cpu" not in build and NVIDIA_DRIVER.exists() else "cpu"


def resources(config: TransformersConfig) -> Resources:
    """Return one bundle: a GPU and the CPU that feeds it, or as many CPUs as there are compute threads."""
    cpu = float(config.threads or 1)
    return Resources(bundles=(Bundle(cpu=cpu, gpu=1.0 if device_of(config) == "cuda" else 0.0),))
