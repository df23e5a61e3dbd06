"""Load a plugin in a process of its own where the heavy libraries cannot be imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Final

import pytest

HEAVY: Final = ("ray", "torch", "transformers", "vllm", "tensorflow", "jax", "onnxruntime")
"""Poisoned besides what the plugin says it requires."""

_PROGRAM: Final = """
import importlib.abc, json, pickle, sys

asked = json.loads(sys.argv[1])
tried = []

class Poison(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in asked["poisoned"]:
            tried.append(name)
            raise ImportError(f"{name} is poisoned: registering a plugin must not import it")
        return None

sys.meta_path.insert(0, Poison())
from trunnion import Registry, EnginePlugin

registry = Registry()
records = [r for r in registry.plugins() if r.name == asked["name"] and r.kind in (asked["kind"], "")]
answer = {
    "states": [r.state.value for r in records],
    "reasons": [r.reason for r in records],
    "imported": sorted({name.partition(".")[0] for name in tried}),
}
plugin = next((r.plugin for r in records if r.plugin is not None), None)
if isinstance(plugin, EnginePlugin) and "config" in asked:
    config = plugin.config.model_validate(asked["config"])
    if plugin.resources is not None:
        first, second = plugin.resources(config), plugin.resources(config)
        answer["resources"] = {"kind": type(first).__name__, "same": first == second}
        pickle.loads(pickle.dumps(first))
print("ANSWER" + json.dumps(answer))
"""


def loaded_without(name: str, *, kind: str, poisoned: tuple[str, ...], config: Any = None) -> dict[str, Any]:
    """Load the plugins of a fresh process without the libraries, and return what became of one of them.

    Returns:
        ``states`` and ``reasons`` of its records, the libraries whose import was tried (``imported``), and for an
        engine with a config what ``resources`` gave.
    """
    asked = {"name": name, "kind": kind, "poisoned": [*HEAVY, *poisoned]}
    if config is not None:
        asked["config"] = config
    done = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-c", _PROGRAM, json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    if not lines:
        pytest.fail(f"the plugin could not be loaded in a process of its own:\n{done.stderr[-4000:]}")
    return dict(json.loads(lines[-1].removeprefix("ANSWER")))
