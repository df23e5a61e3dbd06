"""Run servers side by side and measure them in turn: whoever is not measured is stopped with SIGSTOP."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

ENGINE_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
"""The same for every side: on few cores a pinned, spinning worker starves everything beside it."""


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_until_interrupted(clean_up: Callable[[], None]) -> None:
    """Wait for SIGINT, then clean up."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        clean_up()


class Server:
    """Hold one server process with all it started."""

    def __init__(self, name: str, command: Sequence[str], *, port: int, log: Path, env: Mapping[str, str] = {}) -> None:
        self.name, self.port, self.log = name, port, log
        self._began = time.perf_counter()
        self.startup = 0.0
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                list(command),
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **ENGINE_ENVIRONMENT, **env},
                start_new_session=True,
            )

    def wait_ready(self, path: str, timeout: float = 300.0) -> None:
        """Wait until the server answers 200, then note how long the start took (seconds)."""
        url = f"http://127.0.0.1:{self.port}{path}"
        while time.perf_counter() - self._began < timeout:
            if self._process.poll() is not None:
                raise SystemExit(f"{self.name} exited with {self._process.returncode}; see {self.log}")
            try:
                with urllib.request.urlopen(url, timeout=5) as response:
                    if response.status == 200:
                        self.startup = time.perf_counter() - self._began
                        return
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        raise SystemExit(f"{self.name} was not ready after {timeout:.0f} s; see {self.log}")

    def tree(self) -> list[psutil.Process]:
        """Return the process and everything below it that is alive."""
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def memory(self) -> dict[str, float]:
        """Return the proportional set size in MiB by process name; shared pages are counted once."""
        sizes: dict[str, float] = {}
        for process in self.tree():
            try:
                name = _name(process)
                sizes[name] = round(sizes.get(name, 0.0) + process.memory_full_info().pss / 2**20, 1)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return sizes

    def cpu(self) -> float:
        """Return CPU seconds used so far by the tree (what ended already is not counted)."""
        total = 0.0
        for process in self.tree():
            try:
                times = process.cpu_times()
                total += times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return total

    def cpu_by_name(self) -> dict[str, float]:
        """Return the CPU seconds used so far by process name."""
        used: dict[str, float] = {}
        for process in self.tree():
            try:
                name, times = _name(process), process.cpu_times()
                used[name] = used.get(name, 0.0) + times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return used

    def _signal(self, number: int) -> None:
        for process in self.tree():
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def pause(self) -> None:
        """Stop the whole tree where it stands."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the whole tree go on, and give it a moment to catch up with its timers."""
        self._signal(signal.SIGCONT)
        time.sleep(1.0)

    def stop(self) -> None:
        """End the whole tree."""
        self._signal(signal.SIGCONT)
        tree = self.tree()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=30)
        for process in tree:
            if process.is_running():
                process.kill()


def _name(process: psutil.Process) -> str:
    command = process.cmdline()
    return command[0].split(" ")[0].rsplit("/", 1)[-1] if command else process.name()
