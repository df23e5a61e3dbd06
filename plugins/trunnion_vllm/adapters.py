"""Check LoRA adapters before vLLM starts, and find the engine arguments that they need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from trunnion.errors import ConfigError

_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values vLLM takes for max_lora_rank."""


def rank_of(name: str, path: str) -> int | None:
    """Return an adapter's rank from its files; None for one that is on the Hub.

    Raises:
        ConfigError: A local path holds no adapter.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        if path.startswith(("/", ".", "~")):
            raise ConfigError(f"adapter {name!r}: no such folder {path}", param=f"adapters.{name}")
        return None
    file = folder / "adapter_config.json"
    try:
        return int(json.loads(file.read_text(encoding="utf-8"))["r"])
    except (OSError, ValueError, KeyError) as error:
        message = f"adapter {name!r}: {file} is missing or gives no rank 'r'; is {path} a PEFT LoRA adapter?"
        raise ConfigError(message, param=f"adapters.{name}") from error


def lora_args(adapters: Mapping[str, str]) -> dict[str, Any]:
    """Return the engine arguments that the declared adapters need; empty without adapters.

    Raises:
        ConfigError: A path holds no adapter, or its rank is more than vLLM takes.
    """
    if not adapters:
        return {}
    args: dict[str, Any] = {"enable_lora": True, "max_loras": len(adapters)}
    ranks = {name: rank for name, path in adapters.items() if (rank := rank_of(name, path)) is not None}
    if ranks:
        name = max(ranks, key=ranks.__getitem__)
        fitting = [rank for rank in _RANKS if rank >= ranks[name]]
        if not fitting:
            message = f"adapter {name!r} has rank {ranks[name]}, more than the {_RANKS[-1]} that vLLM takes"
            raise ConfigError(message, param=f"adapters.{name}")
        args["max_lora_rank"] = max(fitting[0], 8)
    return args


def with_spare_slot(args: Mapping[str, Any], declared: int) -> dict[str, Any]:
    """Return engine arguments with one adapter slot more than will be used, for vLLM's CPU build.

    Its LoRA kernels read the slot of a request without an adapter, -1, as *the last slot*: in a batch with other
    requests the base model would answer with whatever adapter lies there. A last slot that stays empty adds zeros.
    """
    if not args.get("enable_lora"):
        return dict(args)
    slots = max(int(args.get("max_loras") or 1), declared) + 1
    held = args.get("max_cpu_loras")
    return {**args, "max_loras": slots, **({} if held is None else {"max_cpu_loras": max(int(held), slots)})}
