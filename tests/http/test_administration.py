"""Adapters come and go over HTTP, for administrators alone and out of declared folders alone."""

import contextlib

import httpx
import pytest
from http_fakes import FakeModel, RunningServer

import trunnion
from trunnion.adapter_library import AdapterLibrary
from trunnion.adapter_setting import LoraSettings
from trunnion_http import HTTPSettings, ModelDirectory, PipelineModel, create_app

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
ADMIN = {"authorization": "Bearer chief"}


def adapter(folder, name):
    (folder / name).mkdir(parents=True)
    (folder / name / "adapter_config.json").write_text('{"r": 8}')
    return str(folder / name)


@pytest.fixture
def folder(tmp_path):
    for name in ("one", "two", "three"):
        adapter(tmp_path / "adapters", name)
    return tmp_path / "adapters"


@contextlib.contextmanager
def serving(lora, monkeypatch, **settings):
    monkeypatch.setenv("ADMINS", "chief")
    directory = ModelDirectory()

    @contextlib.asynccontextmanager
    async def lifespan():
        spec = trunnion.get_registry().engine_spec("sim", "sim", {"adapters": ["declared"]}, lora=lora)
        async with trunnion.open_pipeline(spec) as pipeline:
            library = AdapterLibrary(pipeline, lora)
            await library.start()
            directory.add(PipelineModel("base", pipeline, library))
            yield
            await library.close()

    http = HTTPSettings(admin_keys_env="ADMINS", **settings)
    server = RunningServer(create_app(directory, http, lifespan=lifespan))
    with server, httpx.Client(base_url=server.url, timeout=60, headers=ADMIN) as web:
        web.pipelines = directory
        yield web


def models(web):
    return {model["id"]: model.get("parent") for model in web.get("/v1/models").json()["data"]}


def ask(web, name, status=200):
    answer = web.post("/v1/chat/completions", json={**CHAT, "model": name})
    assert answer.status_code == status, answer.text
    return answer.json()


def load(web, status=200, **body):
    answer = web.post("/v1/load_lora_adapter", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_adapters_of_a_folder_are_loaded_when_asked_for(folder, monkeypatch):
    with serving(LoraSettings(folders=(str(folder),), max_loras=2), monkeypatch) as web:
        assert models(web) == {"base": None, **dict.fromkeys(("declared", "one", "three", "two"), "base")}
        library = web.pipelines.resolve("base")[0].library
        assert library.shelf.loaded == ("declared",)
        for name in ("one", "base:two", "three", "declared"):
            assert ask(web, name)["model"] == name
        assert set(library.shelf.loaded) == {"three", "declared"}
        assert ask(web, "four", 404)["error"]["code"] == "model_not_found"


def test_a_new_folder_is_found_and_one_that_goes_is_forgotten(folder, monkeypatch):
    with serving(LoraSettings(folders=(str(folder),), scan_seconds=0.05), monkeypatch) as web:
        adapter(folder, "late")
        wait_until(lambda: "late" in models(web))
        ask(web, "late")
        (folder / "late" / "adapter_config.json").unlink()
        wait_until(lambda: "late" not in models(web))
        ask(web, "late", 404)


def wait_until(there):
    import time

    end = time.monotonic() + 60
    while not there():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_load_and_unload(folder, monkeypatch):
    with serving(LoraSettings(folders=(str(folder),), scan_seconds=0.05), monkeypatch) as web:
        where = str(folder / "one")
        made = load(web, lora_name="mine", lora_path=where)
        assert (made["id"], made["parent"]) == ("mine", "base")
        assert ask(web, "mine")["model"] == "mine"
        assert load(web, 400, lora_name="mine", lora_path=where)["error"]["param"] == "lora_name"
        load(web, lora_name="mine", lora_path="two", load_inplace=True)
        gone = web.post("/v1/unload_lora_adapter", json={"lora_name": "mine"})
        assert gone.json() == {"id": "mine", "object": "model", "deleted": True}
        ask(web, "mine", 404)
        assert web.post("/v1/unload_lora_adapter", json={"lora_name": "mine"}).status_code == 404
        # One that was found stays away once it was unloaded, though its folder is there.
        assert web.post("/v1/unload_lora_adapter", json={"lora_name": "one"}).status_code == 200
        adapter(folder, "sign")
        wait_until(lambda: "sign" in models(web))
        assert "one" not in models(web)
        load(web, lora_name="one", lora_path=where)
        assert "one" in models(web)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/etc", 400),
        ("../outside", 400),
        ("one/../../outside", 400),
        ("link", 400),
        ("s3://bucket/adapter", 400),
        (".", 400),
        ("nothing", 404),
        ("", 400),
    ],
)
def test_nothing_outside_of_the_folders_is_loaded(folder, monkeypatch, path, status):
    adapter(folder.parent, "outside")
    (folder / "link").symlink_to(folder.parent / "outside")
    with serving(LoraSettings(folders=(str(folder),)), monkeypatch) as web:
        error = load(web, status, lora_name="x", lora_path=path)["error"]
        assert str(folder.parent) not in error["message"] or path == "nothing"
        assert "link" not in models(web)


@pytest.mark.parametrize("name", ["", "a/b", "base", "../x", "a" * 129, "a b"])
def test_a_name_that_would_not_do(folder, monkeypatch, name):
    with serving(LoraSettings(folders=(str(folder),)), monkeypatch) as web:
        assert load(web, 400, lora_name=name, lora_path="one")["error"]["param"] == "lora_name"


def test_without_folders_nothing_is_loaded(monkeypatch):
    with serving(LoraSettings(max_loras=1), monkeypatch) as web:
        assert "lora_path" in load(web, 400, lora_name="x", lora_path="/tmp")["error"]["message"]


ORDERS = ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/sleep", "/wake_up", "/reset_prefix_cache"]


@pytest.mark.parametrize("path", ORDERS)
def test_orders_need_an_administrators_key(monkeypatch, path):
    monkeypatch.setenv("KEYS", "user")
    monkeypatch.setenv("ADMINS", "chief")
    body = {"lora_name": "x", "lora_path": "y"}
    with RunningServer(create_app([FakeModel("m")], HTTPSettings(api_keys_env="KEYS"))) as server:
        url = server.url + path
        assert httpx.post(url, json=body, headers={"x-api-key": "user"}).status_code == 403
        assert httpx.post(url, json=body).status_code == 403
    http = HTTPSettings(api_keys_env="KEYS", admin_keys_env="ADMINS")
    with RunningServer(create_app([FakeModel("m")], http)) as server:
        url = server.url + path
        assert httpx.post(url, json=body).status_code == 401
        assert httpx.post(url, json=body, headers={"x-api-key": "wrong"}).status_code == 401
        refused = httpx.post(url, json=body, headers={"x-api-key": "user"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        assert httpx.post(url, json=body, headers={"x-api-key": "chief"}).status_code not in (401, 403)
        # An administrator may do what others may.
        assert httpx.get(f"{server.url}/v1/models", headers={"x-api-key": "chief"}).status_code == 200


def test_the_simulated_engine_forgets_its_cache_and_does_not_sleep(monkeypatch):
    with serving(LoraSettings(max_loras=1), monkeypatch) as web:
        assert web.post("/reset_prefix_cache").json() == {"status": "ok", "model": "base"}
        error = web.post("/sleep").json()["error"]
        assert (error["code"], error["param"]) == ("unsupported_feature", "model")
        assert web.post("/sleep?level=3").json()["error"]["param"] == "level"


def test_keys_of_a_file(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text("# ours\nteam-a: secret-a  # remark\nsecret-b==\n\n")
    model = FakeModel("m")
    with RunningServer(create_app([model], HTTPSettings(api_keys_file=str(file)))) as server:
        url = f"{server.url}/v1/chat/completions"
        for key, tenant in (("secret-a", "team-a"), ("secret-b==", "key-")):
            assert httpx.post(url, json=CHAT, headers={"x-api-key": key}).status_code == 200
            assert model.last.tenant.startswith(tenant)
        for wrong in ("team-a", "# ours", "team-a: secret-a", ""):
            assert httpx.post(url, json=CHAT, headers={"x-api-key": wrong}).status_code == 401


@pytest.mark.parametrize("content", [None, "", "# nothing\n"])
def test_a_file_without_keys_is_refused(tmp_path, content):
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content)
    with pytest.raises(trunnion.errors.ConfigError, match="keys_file") as caught:
        create_app([FakeModel("m")], HTTPSettings(api_keys_file=str(file)))
    assert caught.value.param == "api_keys_file"


def test_pages_of_other_origins_only_where_asked_for():
    page = {"origin": "https://app.example.com"}
    preflight = {**page, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    with RunningServer(create_app([FakeModel("m")])) as server:
        url = f"{server.url}/v1/chat/completions"
        assert "access-control-allow-origin" not in httpx.post(url, json=CHAT, headers=page).headers
        assert httpx.options(url, headers=preflight).status_code == 405
    with RunningServer(create_app([FakeModel("m")], HTTPSettings(cors_origins=(page["origin"],)))) as server:
        url = f"{server.url}/v1/chat/completions"
        asked = httpx.options(url, headers=preflight)
        assert (asked.status_code, asked.content) == (204, b"")
        assert asked.headers["access-control-allow-origin"] == page["origin"]
        assert asked.headers["access-control-allow-headers"] == "authorization"
        for answer in (httpx.post(url, json=CHAT, headers=page), httpx.post(url, json={}, headers=page)):
            assert answer.headers["access-control-allow-origin"] == page["origin"]
            assert "x-request-id" in answer.headers["access-control-expose-headers"]
        other = {**preflight, "origin": "https://evil.example.com"}
        assert "access-control-allow-origin" not in httpx.options(url, headers=other).headers
        assert "access-control-allow-origin" not in httpx.post(url, json=CHAT, headers=other).headers
    with RunningServer(create_app([FakeModel("m")], HTTPSettings(cors_origins=("*",)))) as server:
        assert httpx.get(f"{server.url}/v1/models", headers=page).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("origin", ["app.example.com", "https://app.example.com/page", "", "null"])
def test_what_is_no_origin_is_refused(origin):
    with pytest.raises(ValueError, match="is no origin: that is scheme and host"):
        HTTPSettings(cors_origins=(origin,))
