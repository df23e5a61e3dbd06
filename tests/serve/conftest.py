"""Keep one Serve with HAProxy and one without for the whole session, each in a process of its own."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

SIM = {"engine": "sim", "ray_actor_options": {"num_cpus": 0.1}, "graceful_shutdown_timeout_s": 2}


def sim(name, *, replica=None, **engine_config):
    return {**SIM, "name": name, "config": engine_config, **(replica or {})}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Lab:
    def __init__(self, topology):
        self.topology = topology
        self.port = free_port()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_SERVE_")}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
        # Autoscaling that reacts within seconds.
        environment["RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = "0.2"
        environment["RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S"] = "0.2"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("lab.py")), topology, str(self.port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,
        )
        self._answers = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.offers = self._answer(90)["offers"]

    def _read(self):
        for line in self.process.stdout:
            self._answers.put(json.loads(line))
        self._answers.put({"error": "the lab ended"})

    def _answer(self, timeout):
        answer = self._answers.get(timeout=timeout)
        assert "error" not in answer, answer["error"]
        return answer

    def __call__(self, do, timeout=60, **arguments):
        self.process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self.process.stdin.flush()
        return self._answer(timeout)["ok"]

    def url(self, app):
        return f"http://127.0.0.1:{self.port}/{app}"

    def post(self, app, body, path="/v1/chat/completions", **options):
        return httpx.post(self.url(app) + path, json=body, timeout=30, **options)

    def get(self, app, path):
        return httpx.get(self.url(app) + path, timeout=30)

    def close(self):
        try:
            self.process.stdin.write(json.dumps({"do": "stop"}) + "\n")
            self.process.stdin.close()
            self.process.wait(timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


FIRST = {
    **sim("m", tpot=0.02, slots=8, fault="hang", fault_marker="linger", fault_after=0, unsupported=["embeds/1"]),
    "adapters": {"loud": "unused"},
}
ONE = {"models": [FIRST]}
MANY = {
    "models": [
        FIRST,
        sim("other/model-1.5", seed=7, tpot=0.02, slots=8),
    ]
}


def start(topology):
    lab = Lab(topology)
    try:
        lab("run", name="one", app=ONE)
        lab("run", name="many", app=MANY)
        wait_until(lambda: lab.get("one", "/ready").status_code == 200)
        wait_until(lambda: lab.get("many", "/ready").status_code == 200)
    except BaseException:
        lab.close()
        raise
    return lab


@pytest.fixture(scope="session")
def proxy_lab():
    lab = start("proxy")
    yield lab
    lab.close()


@pytest.fixture(scope="session")
def direct_lab():
    lab = start("direct")
    yield lab
    lab.close()


@pytest.fixture(scope="session", params=["proxy", "direct"])
def lab(request):
    return request.getfixturevalue(f"{request.param}_lab")


def wait_until(condition, timeout=30, period=0.1):
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, "waited in vain"
        time.sleep(period)


def chat(text="hello there", model="m", **further):
    return {"model": model, "messages": [{"role": "user", "content": text}], "max_tokens": 4, **further}
