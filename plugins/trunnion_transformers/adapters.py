"""Hold the LoRA adapters of a model: which are there, who uses them, and which one is switched on.

The table lives on the event loop; what changes the model (:class:`AdapterSwitch`) runs on the engine's thread.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunnion.engine import AdapterRef
from trunnion.errors import AdapterNotFound, InvalidArgument

from .errors import adapter_error


@dataclass(slots=True, kw_only=True, eq=False)
class Adapter:
    """Hold a loaded adapter; ``key`` is its name inside the model, used once and never again."""

    name: str
    path: str
    key: str
    users: int = 0
    leaving: bool = False
    waiters: list[Any] = field(default_factory=list)

    def release(self) -> None:
        """Count a request less; whoever waits for the last one is told."""
        self.users -= 1
        if not self.users:
            for waiter in self.waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self.waiters.clear()


class AdapterTable:
    """Find adapters by name. Not shared between loops."""

    def __init__(self) -> None:
        """Start empty."""
        self._adapters: dict[str, Adapter] = {}
        self._made = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names in the order they were loaded."""
        return tuple(self._adapters)

    def refs(self) -> list[AdapterRef]:
        """Return names and paths."""
        return [AdapterRef(name=adapter.name, path=adapter.path) for adapter in self._adapters.values()]

    def make(self, name: str, path: str) -> Adapter:
        """Return an adapter under a fresh key; it is not in the table yet."""
        self._made += 1
        return Adapter(name=name, path=str(Path(path).expanduser()), key=f"trunnion{self._made}")

    def add(self, adapter: Adapter) -> Adapter | None:
        """Put a loaded adapter into the table; return the one it replaces."""
        held = self._adapters.get(adapter.name)
        self._adapters[adapter.name] = adapter
        return held

    def find(self, name: str) -> Adapter | None:
        """Return an adapter, or None."""
        return self._adapters.get(name)

    def get(self, name: str) -> Adapter:
        """Return an adapter. Raises :class:`AdapterNotFound` that lists what is loaded."""
        adapter = self._adapters.get(name)
        if adapter is None:
            loaded = ", ".join(self._adapters) or "none"
            raise AdapterNotFound(f"no adapter {name!r} is loaded; loaded: {loaded}", param="adapter")
        return adapter

    def remove(self, name: str) -> Adapter:
        """Take an adapter out and return it. Raises :class:`AdapterNotFound`."""
        adapter = self.get(name)
        del self._adapters[name]
        return adapter


class AdapterSwitch:
    """Load, remove and switch on the adapters of a model with peft. One thread at a time."""

    def __init__(self, model: Any) -> None:
        """Take the model; it has no adapters yet."""
        self._model = model
        self._layers: list[Any] = []
        self._active: str | None = None

    def load(self, adapter: Adapter) -> None:
        """Load an adapter.

        Raises:
            AdapterNotFound: The path holds no adapter.
            InvalidArgument: The adapter is of another model, or of a kind that is no LoRA.
        """
        check_files(adapter.name, adapter.path)
        try:
            self._inject(adapter)
        except Exception as error:
            if adapter.key in getattr(self._model, "peft_config", {}):
                self.unload(adapter.key)  # what the failed load left behind
            raise adapter_error(adapter.name, adapter.path, error) from error
        self._find_layers()

    def _inject(self, adapter: Adapter) -> None:
        """Add the adapter's layers and fill them.

        By peft's own functions: ``PreTrainedModel.load_adapter`` takes the weights of the adapters that are there
        already for missing ones.
        """
        from peft import PeftConfig, load_peft_weights
        from peft.functional import inject_adapter_in_model, set_peft_model_state_dict

        config = PeftConfig.from_pretrained(adapter.path)
        weights = load_peft_weights(adapter.path, device="cpu")
        config.inference_mode = True
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # several are what we are for
        inject_adapter_in_model(config, self._model, adapter.key)
        found = set_peft_model_state_dict(self._model, weights, adapter_name=adapter.key)
        absent = sorted(name for name in found.missing_keys if f".{adapter.key}." in name)
        unknown = sorted(found.unexpected_keys)
        if absent or unknown:
            what = f"it lacks {absent[0]}" if absent else f"the model has no place for {unknown[0]}"
            raise ValueError(what)

    def unload(self, key: str) -> None:
        """Remove an adapter's weights."""
        from peft.functional import delete_adapter

        self._find_layers()
        for layer in self._layers:
            layer.set_adapter([])
        delete_adapter(self._model, adapter_name=key, prefix="lora_")
        self._model.peft_config.pop(key, None)

    def activate(self, key: str | None) -> None:
        """Switch one adapter on, or all off for the base model."""
        if key == self._active:
            return
        for layer in self._layers:
            if key is None:
                layer.enable_adapters(enabled=False)
            else:
                layer.set_adapter(key)
                layer.enable_adapters(enabled=True)
        self._active = key

    def _find_layers(self) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [module for module in self._model.modules() if isinstance(module, BaseTunerLayer)]
        for layer in self._layers:
            layer.enable_adapters(enabled=False)
        self._active = None


def check_files(name: str, path: str) -> None:
    """Refuse a local path that holds no LoRA adapter, before peft looks at it.

    Raises:
        AdapterNotFound: There is no adapter there.
        InvalidArgument: It is an adapter of another kind.
    """
    folder = Path(path)
    if not folder.is_dir():
        if path.startswith(("/", ".", "~")):
            raise AdapterNotFound(f"adapter {name!r}: no such folder {path}", param="adapter")
        return
    file = folder / "adapter_config.json"
    try:
        kind = json.loads(file.read_text(encoding="utf-8")).get("peft_type")
    except (OSError, ValueError, AttributeError) as error:
        message = f"adapter {name!r}: {file} is missing or no JSON; is {path} a PEFT LoRA adapter?"
        raise AdapterNotFound(message, param="adapter") from error
    if kind != "LORA":
        raise InvalidArgument(f"adapter {name!r} at {path} is of kind {kind}; this engine takes LORA", param="adapter")
