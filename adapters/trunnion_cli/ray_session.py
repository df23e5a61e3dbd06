"""Start Ray for one command and stop what was started, or use the cluster that RAY_ADDRESS names."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from trunnion import EngineSpec
from trunnion.errors import ConfigError

from .starting import StartNotice
from .state import STATE


@asynccontextmanager
async def ray_session(cpus: float = 0) -> AsyncIterator[None]:
    """Connect to Ray, starting it on this machine unless RAY_ADDRESS is set, and disconnect in the end.

    Args:
        cpus: What the command's actors take at least; a machine with fewer is told to have them, and they share.

    Raises:
        ConfigError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError("--ray needs Ray: pip install 'trunnion[ray]'") from error
    where: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):
        where["address"] = "local"
        if cpus > (os.cpu_count() or 1):
            where["num_cpus"] = math.ceil(cpus)

    def start() -> None:  # on a thread: Ray would take the signals over on the main one
        level = logging.INFO if STATE.verbose else logging.ERROR
        ray.init(**where, include_dashboard=False, log_to_driver=STATE.verbose, logging_level=level)
        _log_from(level)

    try:
        with StartNotice("Ray"):
            await asyncio.to_thread(start)
        _take_back_signals()
        yield
    finally:
        if not STATE.verbose:
            _log_from(logging.CRITICAL + 1)  # an interrupted job's threads find Ray gone, and report it as an error
        ray.shutdown()


def _take_back_signals() -> None:
    """Take SIGTERM back from Ray, which would abort this process three seconds after it."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def _log_from(level: int) -> None:
    for name in ("ray", "ray.data", "ray.serve"):
        logging.getLogger(name).setLevel(level)


def for_workers(spec: EngineSpec) -> EngineSpec:
    """Return the spec with a local model's path made absolute: workers have a working directory of their own."""
    if spec.model is None or not Path(spec.model).exists():
        return spec
    path = str(Path(spec.model).absolute())
    return EngineSpec(engine=spec.engine, model=path, config=spec.config, plugin_version=spec.plugin_version)
