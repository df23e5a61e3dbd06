"""An application that is stopped answers what it has begun, and tells others so in OpenAI's words."""

import asyncio
import threading
import time

import httpx
import pytest

from trunnion_ray.serve.closing import close_doors

from .conftest import chat, sim, wait_until

DRAIN = 6.0


class Reader(threading.Thread):
    """Read a stream to its end."""

    def __init__(self, url, body):
        super().__init__(daemon=True)
        self.url, self.body = url, body
        self.begun, self.text, self.error = threading.Event(), "", None

    def run(self):
        try:
            with httpx.stream("POST", f"{self.url}/v1/chat/completions", json=self.body, timeout=90) as stream:
                for piece in stream.iter_text():
                    self.text += piece
                    self.begun.set()
        except httpx.HTTPError as error:
            self.error = error
            self.begun.set()


@pytest.mark.ray
@pytest.mark.parametrize("topology", ["proxy", "direct", "gateway"])
def test_a_stop_lets_requests_end_and_refuses_others(topology, request):
    lab = request.getfixturevalue("direct_lab" if topology == "direct" else "proxy_lab")
    name = f"closing-{topology}"
    model = sim("m", tpot=0.02, fault="hang", fault_marker="linger", fault_after=2)
    lab("run", name=name, app={"models": [model], "topology": topology})
    wait_until(lambda: lab.get(name, "/ready").status_code == 200)
    ends = Reader(lab.url(name), chat(stream=True, max_tokens=100, ignore_eos=True))
    lingers = Reader(lab.url(name), chat("linger", stream=True, max_tokens=100, ignore_eos=True))
    for reader in (ends, lingers):
        reader.start()
        assert reader.begun.wait(timeout=30)
    gone = threading.Thread(target=lab, args=("take_down",), kwargs={"name": name, "drain": DRAIN})
    gone.start()
    refused = wait_until(lambda: (answer := lab.post(name, chat())).status_code != 200 and answer)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["message"] == "the server is being stopped"
    for reader in (ends, lingers, gone):
        reader.join(timeout=60)
        assert not reader.is_alive()
    assert (ends.error, lingers.error) == (None, None)
    assert ends.text.endswith("data: [DONE]\n\n")
    assert '"error"' in lingers.text  # it outlasted the time it had, and is told so
    assert "[DONE]" not in lingers.text
    assert name not in lab("applications")


@pytest.mark.ray
def test_a_request_that_waits_for_a_model_to_wake_is_told_of_the_stop(proxy_lab):
    autoscaling = {"min_replicas": 0, "initial_replicas": 0, "max_replicas": 1, "upscale_delay_s": 0.1}
    models = [sim("m"), sim("asleep", replica={"autoscaling": autoscaling}, startup_seconds=300)]
    proxy_lab("run", name="waking", app={"models": models})
    wait_until(lambda: proxy_lab.post("waking", chat()).status_code == 200)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(proxy_lab.post("waking", chat(model="asleep"))))
    waiting.start()
    time.sleep(1)  # it is at the gateway by then
    proxy_lab("take_down", name="waking", drain=1.0)
    waiting.join(timeout=30)
    assert [(one.status_code, one.json()["error"]["message"]) for one in answers] == [
        (503, "the server is being stopped")
    ]


def test_the_models_of_a_users_program_are_left_to_it(monkeypatch):
    asked = []

    async def ask_all(handle, method, *arguments, seconds):
        asked.append(handle.deployment_name)
        return [AttributeError("no close_doors")]

    class Handle:
        deployment_name = "program"

    module = "trunnion_ray.serve.closing"
    monkeypatch.setattr(f"{module}._ray_private.ask_all", ask_all)
    monkeypatch.setattr(f"{module}.serve.get_app_handle", lambda _: Handle)
    close_doors({"app": {"program": 1.0, "model": 1.0}})
    assert asked == ["program"]


async def test_it_can_be_called_where_an_event_loop_runs():
    close_doors({})


def test_it_waits_no_longer_than_it_may(monkeypatch):
    async def ask_all(handle, method, *arguments, seconds):
        await asyncio.sleep(60)

    module = "trunnion_ray.serve.closing"
    monkeypatch.setattr(f"{module}._ray_private.ask_all", ask_all)
    monkeypatch.setattr(f"{module}.serve.get_app_handle", lambda _: type("Handle", (), {"deployment_name": "m"}))
    close_doors({"app": {"m": 60.0}}, most=0.05)
