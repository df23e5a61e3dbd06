"""Replicas come, go, die and multiply."""

import contextlib
import os
import signal
import threading

import httpx
import pytest

from .conftest import chat, sim, wait_until

pytestmark = pytest.mark.ray


@pytest.fixture
def run(proxy_lab):
    names = []

    def run(name, app, do="run"):
        names.append(name)
        return proxy_lab(do, name=name, app=app)

    yield run
    for name in names:
        proxy_lab("delete", name=name)


def in_background(count, call):
    threads = [threading.Thread(target=call, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_replicas_multiply_under_load(proxy_lab, run):
    scale = {
        "min_replicas": 1,
        "max_replicas": 2,
        "target_ongoing_requests": 2,
        "upscale_delay_s": 0.3,
        "metrics_interval_s": 0.2,
        "look_back_period_s": 0.6,
    }
    run("scaled", {"models": [sim("m", replica={"autoscaling": scale}, tpot=0.05)]})
    assert proxy_lab("replicas", name="scaled") == {"m": 1}
    body = chat(stream=True, max_tokens=300)

    def call():
        with httpx.stream("POST", proxy_lab.url("scaled") + "/v1/chat/completions", json=body, timeout=60) as answer:
            for _ in answer.iter_bytes():
                if done.is_set():
                    return

    done = threading.Event()
    threads = in_background(8, call)
    try:
        wait_until(lambda: proxy_lab("replicas", name="scaled") == {"m": 2}, timeout=30)
    finally:
        done.set()
        for thread in threads:
            thread.join(timeout=20)


def test_settings_of_the_deployment_take_effect(proxy_lab, run):
    narrow = {"num_replicas": 2, "max_ongoing_requests": 1, "max_queued_requests": 1}
    run("narrow", {"models": [sim("m", replica=narrow, fault="hang", fault_marker="linger", fault_after=0)]})
    assert proxy_lab("replicas", name="narrow") == {"m": 2}
    statuses = []

    def call():
        with contextlib.suppress(httpx.HTTPError):  # the application goes before all are answered
            statuses.append(proxy_lab.post("narrow", chat("linger")).status_code)

    # Two run, one waits outside, the others are refused by Serve.
    in_background(6, call)
    wait_until(lambda: len(statuses) == 3, timeout=10)
    assert set(statuses) == {503}


def test_a_killed_replica_is_replaced(proxy_lab, run):
    run("mortal", {"models": [sim("m")]})
    (pid,) = proxy_lab("pids", name="mortal")["m"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: proxy_lab("pids", name="mortal")["m"] not in ([], [None], [pid]), timeout=40)
    answer = wait_until(lambda: (a := proxy_lab.post("mortal", chat())).status_code == 200 and a, timeout=20)
    assert answer.json()["usage"]["completion_tokens"] == 4


def test_a_dead_engine_takes_its_replica_along(proxy_lab, run):
    crashing = sim("m", replica={"health_check_period_s": 0.5}, fault="crash", fault_marker="crash", fault_after=1)
    run("crashing", {"models": [crashing]})
    (pid,) = proxy_lab("pids", name="crashing")["m"]
    with httpx.stream(
        "POST", proxy_lab.url("crashing") + "/v1/chat/completions", json=chat("crash", stream=True), timeout=20
    ) as answer:
        assert b'"code":"engine_dead"' in answer.read()
    wait_until(lambda: proxy_lab("pids", name="crashing")["m"] not in ([], [None], [pid]), timeout=40)
    wait_until(lambda: proxy_lab.post("crashing", chat()).status_code == 200, timeout=20)


def test_a_broken_model_does_not_stop_the_others(proxy_lab, run):
    broken = sim("broken", replica={"max_constructor_retry_count": 1}, tokenizer="/nowhere/at/all")
    run("half", {"models": [sim("m"), broken]}, do="deploy")
    wait_until(lambda: _answers(proxy_lab, "half"), timeout=60)
    ready = proxy_lab.get("half", "/ready")
    assert (ready.status_code, ready.json()["models"]) == (503, {"m": True, "broken": False})
    assert proxy_lab.get("half", "/v1/models").status_code == 200


def _answers(lab, app):
    try:
        return lab.post(app, chat()).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.parametrize(("router", "expected"), [("least_loaded", [200, 200]), ("affinity", [200, 429])])
def test_routers_order_the_replicas(proxy_lab, run, router, expected):
    """Two requests of one session: balanced each has a replica, by affinity they meet at one that has one slot."""
    model = sim("m", replica={"num_replicas": 2, "router": {"router": router}}, ttft=2.0, slots=1, max_waiting=0)
    name = f"routed-{router}"
    run(name, {"models": [model], "topology": "gateway"})
    headers = {"x-session-id": "s1"}
    assert proxy_lab.post(name, chat(), headers=headers).status_code == 200
    statuses = []
    threads = in_background(2, lambda: statuses.append(proxy_lab.post(name, chat(), headers=headers).status_code))
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(statuses) == expected


def test_limits_hold_in_the_gateway(proxy_lab, run):
    small = {"max_body_bytes": 400}
    run("limited", {"models": [sim("m")], "topology": "gateway", "http": small})
    assert proxy_lab.post("limited", chat()).status_code == 200
    answer = proxy_lab.post("limited", chat("x" * 500))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def llm_config(name, **engine_kwargs):
    return {
        "model_loading_config": {"model_id": name},
        "llm_engine": "sim",
        "engine_kwargs": engine_kwargs,
        "deployment_config": {"ray_actor_options": {"num_cpus": 0.1}},
    }


def test_mirrored_configurations_are_served(proxy_lab, run):
    run("mirrored", {"llm_configs": [llm_config("org/a", seed=1), llm_config("b", seed=2)]})
    answers = [proxy_lab.post("mirrored", chat(model=name)).json() for name in ("org/a", "b")]
    texts = [answer["choices"][0]["message"]["content"] for answer in answers]
    assert texts[0] != texts[1]
    assert set(proxy_lab("replicas", name="mirrored")) == {"gateway", "LLMServer:org--a", "LLMServer:b"}


def test_a_mirrored_deployment_is_reached_by_handle(proxy_lab, run):
    proxy_lab("run_deployment", name="alone", config=llm_config("a"))
    (whole,) = proxy_lab("chat", name="alone", deployment="LLMServer:a", request=chat(model="a"))
    assert whole["usage"]["completion_tokens"] == 4
    pieces = "".join(proxy_lab("chat", name="alone", deployment="LLMServer:a", request=chat(model="a", stream=True)))
    assert pieces.startswith("data: {")
    assert pieces.endswith("data: [DONE]\n\n")
    (refused,) = proxy_lab("chat", name="alone", deployment="LLMServer:a", request=chat(model="b"))
    assert refused["error"]["code"] == "model_not_found"
    proxy_lab("delete", name="alone")
