"""A bounded number of requests is inside; others are refused at once and told when to come back."""

import threading
import time

import httpx
import openai
import pytest
from http_fakes import FakeModel, RunningServer

from trunnion.errors import Overloaded
from trunnion_http import HTTPSettings, create_app
from trunnion_http.door import Door

CHAT = {"messages": [{"role": "user", "content": "Hi"}]}


def test_who_comes_when_it_is_full_is_told_when_to_come_back():
    door = Door(2)
    entered = [door.enter(), door.enter()]
    with pytest.raises(Overloaded) as caught:
        door.enter()
    assert caught.value.retryable
    assert caught.value.retry_after > 0
    door.leave(entered[0] - 10)  # it took ten seconds
    entered[0] = door.enter()
    with pytest.raises(Overloaded) as caught:
        door.enter()
    assert 4 < caught.value.retry_after < 6
    assert (door.inside, door.refused) == (2, 2)


@pytest.fixture
def model():
    return FakeModel("slow", pieces=["x"] * 10_000, delay=0.05)


@pytest.fixture
def server(model):
    with RunningServer(create_app([model], HTTPSettings(max_requests=2))) as running:
        yield running


def test_the_engine_is_not_asked_by_who_is_refused(server, model):
    url = f"{server.url}/v1/chat/completions"
    left = threading.Event()

    def stay():
        with httpx.stream("POST", url, json={**CHAT, "stream": True}, timeout=120) as answer:
            lines = answer.iter_lines()  # held: a response whose iterator goes is closed
            next(lines)
            left.wait(120)

    threads = [threading.Thread(target=stay) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert model.wait_taken(2, 60)
    answer = httpx.post(url, json=CHAT, timeout=60)
    assert answer.status_code == 429
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-should-retry"] == "true"
    assert len(model.requests) == 2
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:  # noqa: SIM117
        with pytest.raises(openai.RateLimitError, match="the server is full"):
            client.completions.create(model="slow", prompt="x")
    assert httpx.get(f"{server.url}/health", timeout=60).status_code == 200
    assert httpx.get(f"{server.url}/v1/models", timeout=60).status_code == 200
    left.set()
    for thread in threads:
        thread.join()
    for _ in range(100):
        with httpx.stream("POST", url, json={**CHAT, "stream": True}, timeout=120) as again:
            if again.status_code == 200:
                break
        time.sleep(0.05)
    assert again.status_code == 200


def test_a_refused_body_takes_nobodys_place(server):
    for _ in range(5):
        assert httpx.post(f"{server.url}/v1/chat/completions", content=b"{").status_code == 400


@pytest.mark.parametrize(
    ("limit", "header", "most"), [(None, "5", 5.1), (30.0, "5", 5.1), (3.0, "60", 3.1), (3.0, None, 3.1)]
)
def test_a_client_may_ask_for_less_time(limit, header, most):
    model = FakeModel("m")
    with RunningServer(create_app([model], HTTPSettings(request_timeout=limit))) as server:
        headers = {} if header is None else {"x-request-timeout": header}
        began = time.time()
        assert httpx.post(f"{server.url}/v1/completions", json={"prompt": "x"}, headers=headers).status_code == 200
    assert began + most - 0.2 < model.last.deadline < time.time() + most


@pytest.mark.parametrize("header", ["soon", "-1", "0", "nan", "inf"])
def test_a_time_that_is_none_is_refused(server, header):
    answer = httpx.post(f"{server.url}/v1/completions", json={"prompt": "x"}, headers={"x-request-timeout": header})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "X-Request-Timeout"
