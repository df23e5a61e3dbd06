"""Replicas are stopped, scaled away and replaced by a new version while clients ask: no answer is lost or cut."""

import threading
import time

import httpx
import pytest

from .conftest import chat, sim, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]


class Asking:
    """Ask without a pause from several threads, whole and streamed; remember what was not a whole answer."""

    def __init__(self, url, clients=6):
        self.url = url + "/v1/chat/completions"
        self.done = threading.Event()
        self.answers = 0
        self.wrong = []
        self.threads = [threading.Thread(target=self._ask, args=(n % 2 == 0,), daemon=True) for n in range(clients)]

    def _ask(self, stream):
        with httpx.Client(timeout=60) as web:
            while not self.done.is_set():
                try:
                    answer = web.post(self.url, json=chat(stream=stream, max_tokens=10))
                    if answer.status_code != 200 or (stream and "[DONE]" not in answer.text):
                        self.wrong.append((answer.status_code, answer.text[-200:]))
                except httpx.HTTPError as error:
                    self.wrong.append(repr(error))
                self.answers += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for thread in self.threads:
            thread.join(timeout=90)
            assert not thread.is_alive()


def app(topology, replicas, seed=1):
    replica = {"num_replicas": replicas, "graceful_shutdown_timeout_s": 20}
    return {"models": [sim("m", replica=replica, tpot=0.05, seed=seed)], "topology": topology}


@pytest.mark.parametrize("topology", ["gateway", "proxy", "direct"])
def test_nothing_is_lost_while_replicas_come_and_go(request, topology):
    lab = request.getfixturevalue("direct_lab" if topology == "direct" else "proxy_lab")
    name = f"rolling-{topology}"
    lab("run", name=name, app=app(topology, 2), timeout=120)
    try:
        wait_until(lambda: lab.get(name, "/ready").status_code == 200)
        before = lab.post(name, chat()).json()["choices"][0]["message"]["content"]
        with Asking(lab.url(name)) as asking:
            wait_until(lambda: asking.answers > 20, timeout=60)
            lab("run", name=name, app=app(topology, 1), timeout=120)  # scaled down
            wait_until(lambda: lab("replicas", name=name)["m"] == 1, timeout=60)
            lab("run", name=name, app=app(topology, 2, seed=2), timeout=120)  # another version
            wait_until(lambda: lab("replicas", name=name)["m"] == 2, timeout=60)
            time.sleep(2)
        assert not asking.wrong, (len(asking.wrong), asking.answers, asking.wrong[:5])
        assert lab.post(name, chat()).json()["choices"][0]["message"]["content"] != before
    finally:
        lab("delete", name=name, timeout=120)
