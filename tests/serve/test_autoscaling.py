"""Models grow with load by the defaults, fall asleep for lack of it, and wake for a request."""

import contextlib
import threading
import time

import httpx
import pytest

from .conftest import chat, sim, wait_until

pytestmark = pytest.mark.ray

QUICK = {
    "metrics_interval_s": 0.2,
    "look_back_period_s": 1.0,
    "upscale_delay_s": 0.2,
    "downscale_delay_s": 1.0,
    "downscale_to_zero_delay_s": 1.0,
}


@contextlib.contextmanager
def deployed(lab, name, model, topology, models=()):
    lab("run", name=name, app={"models": [model, *models], "topology": topology}, timeout=120)
    yield
    lab("delete", name=name)


@pytest.mark.parametrize("topology", ["gateway", "proxy", "direct"])
def test_to_zero_and_back(request, topology):
    lab = request.getfixturevalue("direct_lab" if topology == "direct" else "proxy_lab")
    name = f"sleepy-{topology}"
    model = sim("m", replica={"autoscaling": {"min_replicas": 0, "max_replicas": 1, **QUICK}})
    with deployed(lab, name, model, topology):
        if topology == "gateway":  # a wait for a replica is a part of a request's time
            wait_until(lambda: lab("replicas", name=name)["m"] == 0, timeout=90)
            headers = {"x-request-timeout": "0.01"}
            answer = httpx.post(lab.url(name) + "/v1/chat/completions", json=chat(), headers=headers, timeout=120)
            assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        for _ in range(2):
            answer = httpx.post(lab.url(name) + "/v1/chat/completions", json=chat(), timeout=120)
            assert answer.status_code == 200, answer.text
            # Whoever looks in meanwhile does not keep it awake.
            wait_until(lambda: (_look_in(lab, name, topology), lab("replicas", name=name)["m"] == 0)[1], timeout=90)
        if topology == "gateway":
            ready = wait_until(lambda: (told := lab.get(name, "/ready")).json()["replicas"] == {"m": 0} and told)
            assert ready.status_code == 200
            assert lab.get(name, "/health").status_code == 200
            time.sleep(1)
            assert lab("replicas", name=name)["m"] == 0


def _look_in(lab, name, topology):
    if topology == "gateway":
        for path in ("/ready", "/health", "/v1/models"):
            assert lab.get(name, path).status_code == 200


@pytest.mark.long
@pytest.mark.parametrize("topology", ["gateway", "proxy", "direct"])
def test_the_defaults_scale(request, topology):
    """Only the most replicas are named; Ray's own defaults for the rest take half a minute."""
    lab = request.getfixturevalue("direct_lab" if topology == "direct" else "proxy_lab")
    name = f"growing-{topology}"
    model = sim("m", replica={"autoscaling": {"max_replicas": 2}}, tpot=0.1, slots=256)
    body = chat(stream=True, max_tokens=3000, ignore_eos=True)
    done = threading.Event()

    def stay():
        url = lab.url(name) + "/v1/chat/completions"
        with contextlib.suppress(httpx.HTTPError), httpx.stream("POST", url, json=body, timeout=300) as answer:
            for _ in answer.iter_bytes():
                if done.is_set():
                    return

    with deployed(lab, name, model, topology):
        assert lab("replicas", name=name)["m"] == 1
        threads = [threading.Thread(target=stay, daemon=True) for _ in range(80)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: lab("replicas", name=name)["m"] == 2, timeout=200)
        finally:
            done.set()
            for thread in threads:
                thread.join(timeout=60)
