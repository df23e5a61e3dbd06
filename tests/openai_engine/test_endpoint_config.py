"""Every setting has an effect; starting looks at the endpoint and says what is wrong with it."""

import asyncio
import json
import subprocess
import sys

import pytest
from endpoint_servers import HELLO, WHOLE, ScriptedServer, answer, ask, engine_at, http, scripted, streamed

import trunnion
from trunnion import Support, TextPrompt, collect
from trunnion.errors import (
    AuthenticationFailed,
    ConfigError,
    EngineDead,
    ModelNotFound,
    Transient,
    TrunnionError,
    UnsupportedFeature,
)
from trunnion_openai import PLUGIN, resources
from trunnion_openai.config import OpenAIConfig


def endpoint(models=({"id": "m"},), *, health=200):
    """Return a script of an endpoint that lists models."""

    async def script(asked, writer):
        if asked.path == "/v1/models":
            writer.write(http(200, json.dumps({"object": "list", "data": list(models)}).encode()))
        elif asked.path.endswith("/health"):
            writer.write(http(health, b"{}"))
        elif asked.body.get("stream"):
            await streamed(*HELLO)(asked, writer)
        else:
            writer.write(http(200, json.dumps(WHOLE).encode()))
        await writer.drain()

    return script


def spec(**config):
    return trunnion.engine_spec("openai", "m", {"base_url": "http://localhost:1/v1", **config})


def test_nothing_heavy_is_imported_before_the_engine_starts():
    code = (
        "import sys\n"
        "for name in ('openai', 'httpx', 'httpx2', 'msgspec', 'aiohttp'): sys.modules[name] = None\n"
        "import trunnion_openai as plugin\n"
        "assert plugin.PLUGIN.resources(plugin.OpenAIConfig()).bundles[0].cpu < 1\n"
        "assert plugin.PLUGIN.capabilities.prompts[0] == 'messages'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_it_takes_and_where_it_runs():
    assert PLUGIN.hardware == ("remote",)
    bundle = resources(OpenAIConfig()).bundles[0]
    assert (bundle.gpu, bundle.cpu < 1) == (0, True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"base_url": "localhost:8000"}, "no address"),
        ({"base_url": "http://user:secret@host/v1"}, "api_key_env"),
        ({"base_url": ()}, "at least one"),
        ({"base_url": ("http://a/v1", "http://a/v1")}, "twice"),
        ({"base_url": "http://a/v1?x=1"}, "query"),
        ({"headers": {"Authorization": "Bearer x"}}, "headers_env"),
        ({"headers": {"x-a": "1"}, "headers_env": {"X-A": "B"}}, "keep one"),
        ({"api_key": "sk-1"}, "api_key_env"),
        ({"weights": (1, 2)}, "2 values for 1 address"),
        ({"weights": (0,)}, "one of them above"),
        ({"weights": (-1,)}, "0 or more"),
        ({"limit_share": 0}, "limit_share"),
        ({"prices": {"input": 1}}, "prices.output"),
    ],
)
def test_what_makes_no_sense_is_refused(config, words):
    with pytest.raises(ConfigError, match=words):
        spec(**config)


async def test_keys_and_headers_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    monkeypatch.setenv("MY_TENANT", "t-secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-openai")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    config = {"api_key_env": "MY_KEY", "headers": {"X-Plain": "p"}, "headers_env": {"X-Tenant": "MY_TENANT"}}
    made = spec(**config)
    assert "secret" not in json.dumps(made.to_json())
    async with scripted(streamed(*HELLO), **config) as (server, engine):
        await collect(engine.generate(ask(request_id="r-1", trace={"traceparent": "00-a"})))
        headers = server.asked[0].headers
    assert headers["authorization"] == "Bearer sk-secret"
    assert (headers["x-tenant"], headers["x-plain"]) == ("t-secret", "p")
    assert (headers["x-client-request-id"], headers["traceparent"]) == ("r-1", "00-a")
    async with scripted(streamed(*HELLO)) as (server, engine):
        await collect(engine.generate(ask()))
        headers = server.asked[0].headers
    assert "authorization" not in headers  # OpenAI's key is nobody else's
    assert "openai-organization" not in headers
    monkeypatch.delenv("MY_KEY")
    with pytest.raises(ConfigError, match="MY_KEY") as caught:
        async with scripted(streamed(*HELLO), **config):
            pass
    assert caught.value.param == "api_key_env"


async def test_openais_own_address_takes_openais_own_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="OPENAI_API_KEY"):
        async with engine_at("https://api.openai.com/v1"):
            pass
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    async with engine_at("https://api.openai.com/v1") as engine:
        assert engine.info.details["dialect"] == "openai"


@pytest.mark.parametrize(
    ("owner", "dialect", "top_k"),
    [
        ("vllm", "vllm", Support.YES),
        ("openai", "openai", Support.NO),
        ("somebody", "other", Support.UNKNOWN),
        (None, "other", Support.UNKNOWN),
    ],
)
async def test_the_list_of_models_tells_the_dialect(owner, dialect, top_k):
    cards = [
        {"id": "m", "owned_by": owner, "max_model_len": 77},
        {"id": "a", "owned_by": owner, "parent": "m"},
    ]
    async with scripted(endpoint(cards), check_endpoint=True) as (_, engine):
        info = engine.info
    assert (info.details["dialect"], info.context_length, info.adapters) == (dialect, 77, ("a",))
    assert info.capabilities.support("sampling.top_k") is top_k


async def test_a_dialect_that_was_set_is_not_guessed():
    cards = [{"id": "m", "owned_by": "vllm"}]
    async with scripted(endpoint(cards), check_endpoint=True, dialect="openai") as (_, engine):
        assert engine.info.details["dialect"] == "openai"


async def test_what_the_dialect_does_not_know_is_refused_before_it_is_sent():
    async with scripted(endpoint()) as (server, _):
        config = {"base_url": server.url, "dialect": "openai"}
        async with trunnion.open_pipeline(trunnion.engine_spec("openai", "m", config)) as pipeline:
            before = len(server.asked)
            with pytest.raises(UnsupportedFeature) as caught:
                await pipeline.complete(ask(sampling={"top_k": 3}))
            assert caught.value.param == "top_k"
            assert len(server.asked) == before


async def test_a_model_that_is_not_there():
    with pytest.raises(ModelNotFound, match=r"serves no model 'm'; it has x, y"):
        async with scripted(endpoint([{"id": "x"}, {"id": "y"}]), check_endpoint=True):
            pass
    async with scripted(endpoint([{"id": "x"}]), check_endpoint=False) as (server, _):
        assert server.asked == []


async def test_the_one_model_there_is_needs_no_name():
    cards = [{"id": "x"}, {"id": "a", "parent": "x"}]
    async with scripted(endpoint(cards), model=None, check_endpoint=True) as (server, engine):
        assert engine.info.model == "x"
        await collect(engine.generate(ask()))
        assert server.asked[-1].body["model"] == "x"
    with pytest.raises(ConfigError, match="name the model"):
        async with scripted(endpoint([{"id": "x"}, {"id": "y"}]), model=None, check_endpoint=True):
            pass


async def test_nobody_there():
    with pytest.raises(Transient, match="start the endpoint, or correct base_url"):
        async with engine_at("http://127.0.0.1:9/v1", check_endpoint=True, startup_timeout=0.3):
            pass


async def test_an_endpoint_that_comes_up_late_is_waited_for():
    left, states = [False, True, True], iter([503, 503])

    async def script(asked, writer):
        await (answer(next(states), {}) if left.pop() else endpoint())(asked, writer)

    async with scripted(script, check_endpoint=True, startup_timeout=20.0) as (server, _):
        assert len(server.asked) == 3


async def test_an_endpoint_that_hangs():
    async def script(_, writer):
        await asyncio.sleep(60)

    with pytest.raises(Transient):
        async with scripted(script, check_endpoint=True, startup_timeout=0.3):
            pass


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        (answer(401, {}), AuthenticationFailed, "api_key_env"),
        (answer(200, b"<html>", kind="text/html"), ConfigError, "/v1"),
        (answer(200, b"[1]"), ConfigError, "/v1"),
    ],
)
async def test_starts_that_are_futile_end_at_once(script, kind, words):
    with pytest.raises(kind, match=words):
        async with scripted(script, check_endpoint=True, startup_timeout=30.0):
            pass


async def test_an_endpoint_without_a_list():
    async with scripted(answer(404, {}), check_endpoint=True) as (_, engine):
        assert engine.info.context_length is None
        await engine.check_health()


async def test_one_of_two_addresses_is_enough_to_start():
    dead = "http://127.0.0.1:9/v1"
    async with ScriptedServer(endpoint()) as server, engine_at(dead, server.url, check_endpoint=True) as engine:
        assert (await collect(engine.generate(ask()))).text == "Hello"


async def test_health():
    async with scripted(endpoint(health=503), health_path="../health") as (server, engine):
        with pytest.raises(EngineDead):
            await engine.check_health()
        assert server.asked[-1].path == "/health"
    async with scripted(endpoint()) as (server, engine):
        await engine.check_health()
        assert server.asked[-1].path == "/v1/models"
    async with engine_at("http://127.0.0.1:9/v1") as engine:
        with pytest.raises(EngineDead, match="nobody answers"):
            await engine.check_health()


async def test_settings_that_are_sent():
    async with scripted(streamed(*HELLO), extra_body={"reasoning_effort": "low"}, stream_usage=False) as (server, e):
        await collect(e.generate(ask()))
        body = server.asked[0].body
    assert body["reasoning_effort"] == "low"
    assert "stream_options" not in body


async def test_settings_that_are_told():
    async with scripted(streamed(*HELLO), context_length=9, max_concurrency=3, tokenizer="t") as (_, engine):
        info = engine.info
    assert (info.context_length, info.concurrency, info.tokenizer.path) == (9, 3, "t")
    assert info.library.startswith("openai ")


@pytest.mark.parametrize(
    ("api", "prompts"),
    [("auto", ("messages", "text", "token_ids")), ("chat", ("messages",)), ("completions", ("text", "token_ids"))],
)
async def test_the_api_decides_on_the_prompts(api, prompts):
    async with scripted(endpoint()) as (server, _):
        config = {"base_url": server.url, "api": api}
        async with trunnion.open_pipeline(trunnion.engine_spec("openai", "m", config)) as pipeline:
            assert pipeline.info.capabilities.prompts == prompts
            request = ask(prompt=TextPrompt(text="Hi"), sampling={"max_tokens": 3})
            if api == "chat":
                with pytest.raises(UnsupportedFeature, match="takes prompts as messages"):
                    pipeline.plan(request)
            else:
                assert pipeline.plan(request).sends == "text"


async def test_idle_connections_are_kept_as_long_as_set():
    for keepalive, connections in ((30.0, 1), (0.0, 2)):
        async with scripted(streamed(*HELLO), keepalive=keepalive) as (server, engine):
            await collect(engine.generate(ask()))
            await asyncio.sleep(0.02)
            await collect(engine.generate(ask()))
            assert server.connections == connections


async def test_the_time_for_a_connection():
    from trunnion_openai import _openai

    timeout = _openai._timeout(OpenAIConfig(connect_timeout=1.5, read_timeout=2.5))
    assert (timeout.connect, timeout.read, timeout.pool) == (1.5, 2.5, None)


async def test_values_that_cannot_be_written():
    async with scripted(streamed(*HELLO)) as (_, engine):
        with pytest.raises(TrunnionError):
            await collect(engine.generate(ask("\ud800")))
