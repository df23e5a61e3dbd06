"""Run the real command in a process group of its own, and see to it that nothing of it is left."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from cli_lines import COMMAND


class Cli:
    """Start commands in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.started = []

    def start(self, *arguments, env=None, stdin=subprocess.DEVNULL):
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, **(env or {})},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, *arguments, text=None, env=None, timeout=60):
        process = self.start(*arguments, env=env, stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL)
        out, err = process.communicate(text, timeout=timeout)
        return Result(process.returncode, out, err)

    def interrupt(self, process, number=signal.SIGINT, timeout=20):
        """Do what Ctrl-C does: signal the whole process group."""
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=timeout)
        return Result(process.returncode, out, err)

    def commands(self, process):
        """Return the command lines of a command's processes, its own included."""
        found = []
        for pid in group_members(process.pid):
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
        return found

    def write(self, name, rows):
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def read(self, name):
        return [json.loads(line) for line in (self.folder / name).read_text(encoding="utf-8").splitlines()]


class Result:
    """Hold what a command left."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def __repr__(self):
        return f"exit {self.code}\nstdout: {self.out}\nstderr: {self.err}"


def group_members(group):
    """Return the living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if group in (int(fields[2]), int(fields[3])) and fields[0] != "Z":  # its group or its session
            found.append(int(stat.parent.name))
    return found


@pytest.fixture
def cli(tmp_path):
    made = Cli(tmp_path)
    yield made
    for process in made.started:
        deadline = time.monotonic() + 2  # helpers that end with their parent, such as a resource tracker, see it late
        while (leftovers := group_members(process.pid)) and process.poll() is not None:
            if time.monotonic() >= deadline:
                break
            time.sleep(0.02)
        for pid in leftovers:
            os.kill(pid, signal.SIGKILL)
        process.wait(timeout=10)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        assert not leftovers, f"processes left behind: {leftovers}"


@pytest.fixture
def until():
    def wait(condition, seconds=15.0):
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    return wait
