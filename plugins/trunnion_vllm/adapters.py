"""Check LoRA adapters before vLLM starts, and keep the ones that are loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from trunnion.errors import AdapterNotFound, ConfigError

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


class AdapterTable:
    """Hold the LoRARequest of every loaded adapter by name; ids are never used twice."""

    def __init__(self) -> None:
        """Start empty, without a limit."""
        self._requests: dict[str, Any] = {}
        self._next_id = 1
        self.limit: int | None = None

    @property
    def full(self) -> bool:
        """Tell whether a further adapter would take the slot that must stay empty."""
        return self.limit is not None and len(self._requests) >= self.limit

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names in the order they were loaded."""
        return tuple(self._requests)

    def items(self) -> list[tuple[str, Any]]:
        """Return names with their LoRARequests."""
        return list(self._requests.items())

    def make(self, name: str, path: str) -> Any:
        """Return a LoRARequest with a fresh id; it is not in the table yet."""
        from . import _vllm

        number, self._next_id = self._next_id, self._next_id + 1
        return _vllm.LoRARequest(lora_name=name, lora_int_id=number, lora_path=str(Path(path).expanduser()))

    def add(self, name: str, request: Any) -> None:
        """Put an adapter that vLLM has loaded into the table."""
        self._requests[name] = request

    def find(self, name: str) -> Any | None:
        """Return the LoRARequest of a name, or None."""
        return self._requests.get(name)

    def get(self, name: str) -> Any:
        """Return the LoRARequest of a name. Raises :class:`AdapterNotFound` that lists what is loaded."""
        request = self._requests.get(name)
        if request is None:
            loaded = ", ".join(self._requests) or "none"
            raise AdapterNotFound(f"no adapter {name!r} is loaded; loaded: {loaded}", param="adapter")
        return request

    def remove(self, name: str) -> Any:
        """Take an adapter out and return it. Raises :class:`AdapterNotFound`."""
        request = self.get(name)
        del self._requests[name]
        return request
