"""The last resort: processes that ignore everything are still ended."""

import subprocess
import sys

from trunnion_cli.interrupts import descendants

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = f"""
import subprocess, sys
from trunnion_cli import interrupts
interrupts._TERM_SECONDS = 0.3
interrupts.STATE.verbose = True
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
interrupts.end_now(130)
"""

# Complains where its own child dies before it, as engines do; ends that child when it is asked to end.
OWNER = """
import signal, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
print("up", flush=True)
try:
    print("my child died with", child.wait())
finally:
    print("asked")
    child.kill()
    child.wait()
"""
GRANDPARENT = f"""
import subprocess, sys
from trunnion_cli import interrupts
interrupts._TERM_SECONDS = 20.0
child = subprocess.Popen([sys.executable, "-c", {OWNER!r}], stdout=subprocess.PIPE, text=True)
child.stdout.readline()
interrupts.end_children()
print(child.stdout.read(), interrupts.descendants())
"""

SLOW = """
import asyncio, os, signal, threading, time
from trunnion_cli import interrupts
interrupts.GRACE = 0.3
async def command(_):
    try:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(60)
interrupts.run_async(command)
"""


def test_a_child_that_ignores_sigterm_is_killed():
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 130, done.stderr
    pid = int(done.stdout)
    assert f"had to kill process {pid}" in done.stderr
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    assert listed.stdout.strip()[:1] in ("", "Z")


def test_who_started_others_ends_them():
    done = subprocess.run([sys.executable, "-c", GRANDPARENT], capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.split("\n") == ["asked", " []", ""], done


def test_a_clean_up_that_hangs_is_cut_short():
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 130, done.stderr


def test_descendants_are_found():
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"up\n"
        assert child.pid in descendants()
        child.kill()
