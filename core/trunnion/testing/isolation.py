"""Load a plugin in a process of its own where the heavy libraries cannot be imported."""

from __future__ import annotations

import functools
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
records = registry.plugins()
answer = {
    "records": [[r.kind, r.name, r.state.value, r.reason] for r in records],
    "imported": sorted({name.partition(".")[0] for name in tried}),
}
plugin = next((r.plugin for r in records if r.name == asked.get("name") and isinstance(r.plugin, EnginePlugin)), None)
if plugin is not None:
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
    asked: dict[str, Any] = {"poisoned": [*HEAVY, *poisoned]}
    if config is not None:
        asked |= {"name": name, "config": config}
    answer = dict(_answer(json.dumps(asked)))
    records = [record for record in answer.pop("records") if record[1] == name and record[0] in (kind, "")]
    return {"states": [record[2] for record in records], "reasons": [record[3] for record in records], **answer}


@functools.cache
def _answer(asked: str) -> dict[str, Any]:
    """Run the program; the plugins that need the same libraries share a process."""
    done = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-c", _PROGRAM, asked],
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
