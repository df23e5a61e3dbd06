"""A replica's processes go with it, even if it is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import wait_until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are followed through /proc")

REPLICA = """
import asyncio, subprocess, sys
from trunnion_ray.reaper import Reaper

async def main():
    reaper = Reaper()
    reaper.start()
    child = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    grandchild = child.stdout.readline().strip()
    reaper.settle()
    print(child.pid, grandchild, reaper._process.pid, flush=True)
    if sys.argv[1] == "close":
        await asyncio.to_thread(sys.stdin.readline)
        reaper.close()
    await asyncio.sleep(600)

asyncio.run(main())
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("how", ["kill", "close"])
def test_what_a_killed_replica_started_is_killed(how):
    with subprocess.Popen(
        [sys.executable, "-c", REPLICA, how], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as replica:
        child, grandchild, watcher = map(int, replica.stdout.readline().split())
        assert all(map(alive, (child, grandchild, watcher)))
        if how == "close":
            replica.stdin.write("\n")
            replica.stdin.flush()
            wait_until(lambda: not alive(watcher), timeout=10)
        replica.send_signal(signal.SIGKILL)
        replica.wait()
    if how == "kill":
        wait_until(lambda: not (alive(child) or alive(grandchild) or alive(watcher)), timeout=10)
    else:
        assert alive(child)  # stopped in good order: nobody is watched any more
        os.kill(child, signal.SIGKILL)
        os.kill(grandchild, signal.SIGKILL)
