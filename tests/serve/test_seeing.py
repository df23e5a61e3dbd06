"""The page, the figures, the lines and the spans of replicas and of a gateway, over every topology."""

import json

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import chromium
from collector import collecting

from .conftest import chat, sim, wait_until

pytestmark = pytest.mark.ray

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize("app", ["one", "many"])
def test_the_page_is_served_under_the_prefix(lab, app):
    answer = httpx.get(f"{lab.url(app)}/", headers={"accept": "text/html"})
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    refused = lab.get(app, "/")
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "unknown_url"
    bare = httpx.get(lab.url(app), headers={"accept": "text/html"}, follow_redirects=True)
    assert bare.status_code == 200
    assert bare.content == answer.content


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if chromium.find() is None:
        pytest.skip(chromium.MISSING)
    made = chromium.Chromium(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.mark.parametrize("app", ["one", "many"])
def test_the_page_works_there_in_a_browser(lab, app, browser):
    page = browser.page()
    page.goto(lab.url(app))  # without the slash at its end, to which its addresses are relative
    page.wait("document.querySelector('#model').value === 'm'")
    page.type("#max-tokens", "4")
    page.type("#message", "hello there")
    page.click("#send")
    page.wait("document.querySelector('.turn.assistant .quiet')")
    assert "4 out" in page.text(".turn.assistant .quiet")
    topology = "gateway" if app == "many" else lab.topology
    page.wait(f"document.querySelector('#state').textContent === 'ready, {topology} topology'")
    page.wait("Number(document.querySelector('#models td:nth-child(5)')?.textContent) > 0")
    page.wait("Number(document.querySelector('#models td:last-child')?.textContent) >= 4")
    page.wait(f"document.querySelectorAll('#replicas tr').length === {2 if app == 'many' else 1}")
    if topology == "gateway":
        page.wait("document.querySelector('#models td:nth-child(2)')?.textContent === 'ready (1)'")
        assert "other/model-1.5 " in page.text("#replicas")
    assert page.complaints == []


def test_the_gateway_tells_how_many_replicas_run(lab):
    assert lab.get("many", "/ready").json()["replicas"] == {"m": 1, "other/model-1.5": 1}


def figures(lab, app):
    families = text_string_to_metric_families(lab.get(app, "/metrics").text)
    return {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}


def test_a_replica_is_told_by_its_tag(lab):
    (told,) = (dict(key[1:]) for key in figures(lab, "one") if key[0] == "trunnion_info")
    assert len(told["instance"]) >= 8


def test_the_gateway_counts_what_it_relays(lab):
    def counted():
        wanted = {"model": "m", "endpoint": "/v1/chat/completions", "status": "200"}
        return figures(lab, "many").get(("trunnion_requests_total", *sorted(wanted.items())), 0)

    before = counted()
    assert lab.post("many", chat()).status_code == 200
    assert lab.post("many", chat(stream=True)).status_code == 200
    assert counted() == before + 2
    assert lab.post("many", chat(model="absent")).status_code == 404
    lost = {"model": "", "endpoint": "/v1/chat/completions", "status": "404"}
    assert figures(lab, "many")["trunnion_requests_total", *sorted(lost.items())] >= 1


def test_the_gateway_tells_what_its_replicas_do(lab):
    def told(name):
        return {key: value for key, value in figures(lab, "many").items() if key[0] == f"trunnion_{name}"}

    def generated():
        return sum(value for key, value in told("completion_tokens_total").items() if ("model", "m") in key)

    before = generated()
    assert lab.post("many", chat(stream=True, max_tokens=7)).status_code == 200
    assert wait_until(lambda: generated() - before) == 7
    for name in ("time_to_first_token_seconds_count", "inter_token_seconds_count", "own_event_seconds_count"):
        assert any(("model", "m") in key and value for key, value in told(name).items()), name
    assert len({dict(key[1:])["replica"] for key in told("engine_running")}) == 2
    assert all("replica" not in dict(key[1:]) for key in told("requests_total"))  # each request is counted once
    assert {dict(key[1:]).get("replica") for key in told("info")} > {None}


@pytest.mark.parametrize("models", [1, 2], ids=["ingress", "gateway"])
def test_replicas_trace_and_log(lab, models):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with collecting() as collector:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
        names = ["m", "n"][:models]
        app = {
            "models": [sim(name, replica={"env_vars": env}) for name in names],
            "http": {"log_requests": True},
        }
        lab("run", name="seen", app=app)
        try:
            wait_until(lambda: lab.get("seen", "/ready").status_code == 200)
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": f"seen-{lab.topology}-{models}"}
            assert lab.post("seen", chat("xyzzy"), headers=headers).status_code == 200
            ((span, resource),) = wait_until(lambda: collector.spans)
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
            assert span.name == "chat m"
            assert resource["service.name"] == "trunnion"
            (line,) = wait_until(lambda: lab("lines", text=f'"trace_id":"{TRACE}","span_id":"{span.span_id.hex()}"'))
            told = json.loads(line)
            assert (told["model"], told["status"], told["output_tokens"]) == ("m", 200, 4)
            assert "xyzzy" not in line
            if models > 1:
                absent = f"absent-{lab.topology}"
                headers = {"x-request-id": absent}
                assert lab.post("seen", chat(model="absent"), headers=headers).status_code == 404
                (line,) = wait_until(lambda: lab("lines", text=absent))
                assert json.loads(line)["error"] == "model_not_found"
        finally:
            lab("delete", name="seen")
