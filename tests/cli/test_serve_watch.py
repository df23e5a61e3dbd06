"""What is told of served applications, in which words and when: Serve is a fake here."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from trunnion.errors import TrunnionError
from trunnion_cli import serve_watch
from trunnion_cli.serve_here import how_to_ask
from trunnion_cli.serve_watch import Watch
from trunnion_http import HTTPSettings
from trunnion_ray.serve import AppConfig
from trunnion_ray.serve.config_file import FileApplication
from trunnion_ray.serve.deploy_file import Report

MANY = AppConfig(models=[{"name": "a", "engine": "sim"}, {"name": "b", "engine": "sim"}])
APPS = (
    FileApplication(name="many", route_prefix="/many", config=MANY),
    FileApplication(name="own", route_prefix="/", config=None),
    FileApplication(name="silent", route_prefix=None, config=None),
)


def one(application, model, state, reason=""):
    return Report(application, model, state, reason)


OTHERS = [one("own", None, "ready"), one("silent", None, "ready")]


@pytest.fixture
def watch(monkeypatch, capfd):
    """Let looks see one list of reports after the other; return what is said."""
    monkeypatch.setattr(serve_watch, "_PERIOD", 0)
    monkeypatch.setattr(serve_watch, "_answers", lambda _: True)

    async def run(*looks, host="127.0.0.1", **options):
        left, stopped = list(looks), asyncio.Event()

        def look():
            reports = left.pop(0)
            if not left:
                loop.call_soon_threadsafe(stopped.set)
            return reports

        loop = asyncio.get_running_loop()
        file = SimpleNamespace(path=Path("f.yaml"), applications=APPS, data={"http_options": options})
        try:
            await Watch(SimpleNamespace(file=file, look=look), host, 80, stopped).run()
        finally:
            said = capfd.readouterr().err.splitlines()
        return said

    return run


async def test_what_changes_is_told_once(watch):
    said = await watch(
        [one("many", "a", "starting"), one("many", None, "starting"), *OTHERS],
        [one("many", "a", "starting", "it waits"), one("many", None, "starting", "it waits"), *OTHERS],
        [one("many", "a", "starting", "it waits"), one("many", None, "starting", "it waits"), *OTHERS],
        [one("many", "a", "ready"), one("many", "b", "failed", "no luck"), one("many", None, "failed"), *OTHERS],
        [one("many", "a", "ready"), one("many", "b", "ready"), one("many", None, "ready"), *OTHERS],
    )
    assert [line for line in said if not line.startswith("try:")] == [
        "ready: application own at http://127.0.0.1:80",
        "ready: application silent",
        "starting: model a of application many: it waits",
        "starting: application many: it waits",
        "ready: model a of application many",
        "failed: model b of application many: no luck",
        "ready in part: application many, a alone at http://127.0.0.1:80/many/v1",
        "Ctrl-C stops it",
        "ready: model b of application many",
        "ready: application many at http://127.0.0.1:80/many/v1",
    ]
    (curl,) = [line for line in said if line.startswith("try:")]
    assert "http://127.0.0.1:80/many/v1/chat/completions" in curl
    assert '"model": "a"' in curl


async def test_a_replica_that_is_replaced_is_no_failure(watch):
    lost = "a replica is lost and is being replaced; the others answer"
    said = await watch(
        [one("own", None, "ready")],
        [one("own", None, "ready", lost)],
        [one("own", None, "ready")],
    )
    ready = "ready: application own at http://127.0.0.1:80"
    assert said == [ready, "Ctrl-C stops it", f"ready: application own: {lost}", ready]


async def test_a_gateway_that_failed_serves_nothing(watch):
    failed = [one("many", "a", "ready"), one("many", "gateway", "failed", "x"), one("many", None, "failed", "x")]
    said = await watch([*failed, *OTHERS])
    assert "failed: application many: x" in said
    assert not any("in part" in line for line in said)


async def test_where_all_failed_it_ends(watch):
    with pytest.raises(TrunnionError, match=r"nothing of f\.yaml could be served"):
        await watch([one("many", "a", "failed", "x"), one("many", None, "failed", "x")], [])


@pytest.mark.parametrize(
    ("host", "options", "url"),
    [("0.0.0.0", {}, "http://127.0.0.1:80"), ("::1", {}, "http://[::1]:80"),
     ("x", {"ssl_certfile": "c"}, "https://x:80")],
)  # fmt: skip
async def test_addresses_are_told_as_they_can_be_reached(watch, host, options, url):
    said = await watch([one("own", None, "ready")], host=host, **options)
    assert said[0] == f"ready: application own at {url}"


@pytest.mark.parametrize("keyed", [{"api_keys_env": "KEYS"}, {"api_keys_file": "/keys"}])
def test_how_to_ask_has_a_place_for_the_key_where_one_is_needed(keyed):
    assert "'authorization: Bearer YOUR_KEY'" in how_to_ask("http://x/v1", "m", HTTPSettings(**keyed))
    assert "authorization" not in how_to_ask("http://x/v1", "m", HTTPSettings())
