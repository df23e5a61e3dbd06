"""A replica is killed while it answers: nothing hangs, and what can be sent elsewhere is."""

import json
import os
import signal
import threading
import time

import httpx
import pytest

from .conftest import chat, sim, wait_until

pytestmark = pytest.mark.ray

LIMIT = 30
"""Seconds within which a stream must have ended; five on a machine that has nothing else to do."""


@pytest.fixture(params=["gateway", "proxy", "direct"])
def served(request):
    """Serve two replicas that answer slowly."""
    lab = request.getfixturevalue("direct_lab" if request.param == "direct" else "proxy_lab")
    name = f"deaths-{request.param}"
    model = sim("m", replica={"num_replicas": 2}, ttft=3.0, tpot=0.2, slots=64)
    lab("run", name=name, app={"models": [model], "topology": request.param})
    wait_until(lambda: lab.get(name, "/ready").status_code == 200)
    if request.param == "direct":  # HAProxy may have been told of one of them only
        seen = set()
        wait_until(lambda: seen.add(started(lab.get(name, "/metrics").text)) or len(seen) == 2, timeout=90)
    yield lab, name, request.param
    lab("delete", name=name)


def started(metrics):
    """Return what tells one replica's process from another's."""
    return next(line for line in metrics.splitlines() if line.startswith("process_start_time_seconds "))


class Client(threading.Thread):
    """Ask once, and remember what came."""

    def __init__(self, url, body):
        super().__init__(daemon=True)
        self.url, self.body = url, body
        self.status = None
        self.text = ""
        self.error = None
        self.began = threading.Event()
        self.ended = None

    def run(self):
        try:
            with httpx.stream("POST", self.url + "/v1/chat/completions", json=self.body, timeout=120) as answer:
                self.status = answer.status_code
                for piece in answer.iter_text():
                    self.text += piece
                    self.began.set()
        except httpx.HTTPError as error:
            self.error = error
        self.ended = time.monotonic()


def kill_one(lab, name):
    pids = lab("pids", name=name)
    victim = pids["m"][0]
    os.kill(victim, signal.SIGKILL)
    return victim


def test_what_has_no_token_yet_is_answered_by_another_replica(served):
    lab, name, topology = served
    bodies = [chat(stream=stream) for stream in (False, True) * 6]
    clients = [Client(lab.url(name), body) for body in bodies]
    for client in clients:
        client.start()
    time.sleep(1.5)  # they are with their replicas, which answer after three seconds
    kill_one(lab, name)
    for client in clients:
        client.join(timeout=90)
        assert not client.is_alive()
    well = [client for client in clients if client.status == 200 and client.error is None]
    if topology == "gateway":
        assert len(well) == len(clients), [(client.status, client.text, client.error) for client in clients]
    else:  # Serve's own proxies send nothing again, and say so
        print(topology, {(client.status, client.text[:60], str(client.error)) for client in clients})
        assert {client.status for client in clients if client not in well} <= {None, 500, 502, 503}


def test_a_stream_that_began_ends_with_an_error_or_without_its_end(served):
    lab, name, topology = served
    clients = [Client(lab.url(name), chat(stream=True, max_tokens=1000, ignore_eos=True)) for _ in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        assert client.began.wait(60)
    killed = time.monotonic()
    kill_one(lab, name)
    wait_until(lambda: any(client.ended for client in clients), timeout=60)
    time.sleep(2)
    cut = [client for client in clients if client.ended]
    assert 0 < len(cut) < len(clients)  # the other replica goes on
    for client in cut:
        assert client.ended - killed < LIMIT
        assert "[DONE]" not in client.text
        if topology == "gateway":
            error = json.loads(client.text.rstrip().rpartition("data: ")[2])["error"]
            assert (error["code"], error["type"]) == ("unavailable", "service_unavailable_error")
        print(topology, "ended after", round(client.ended - killed, 2), repr(client.text[-200:]), client.error)
