"""Adapters reach every replica, and replicas that come later; the gateway knows of them at once."""

import os
import signal

import pytest

from .conftest import chat, sim, wait_until

pytestmark = pytest.mark.ray

CHIEF = {"x-api-key": "chief"}


def adapter(folder, name):
    (folder / name).mkdir(parents=True)
    (folder / name / "adapter_config.json").write_text("{}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("shared")
    for name in ("one", "two", "three"):
        adapter(path / "adapters", name)
    (path / "keys").write_text("chief")
    return path / "adapters"


def app(folder, topology, replicas=2, **lora):
    replica = {"num_replicas": replicas, "lora": {"folders": [str(folder)], "scan_seconds": 0.2, **lora}}
    http = {"admin_keys_file": str(folder.parent / "keys")}
    return {"models": [sim("m", replica=replica)], "topology": topology, "http": http}


def names(lab, name):
    return [model["id"] for model in lab.get(name, "/v1/models").json()["data"]]


def order(lab, name, path, **body):
    return lab.post(name, body, path, headers=CHIEF)


@pytest.fixture(scope="module", params=["proxy", "direct", "gateway"])
def served(request, folder):
    lab = request.getfixturevalue("direct_lab" if request.param == "direct" else "proxy_lab")
    name = f"adapters-{request.param}"
    lab("run", name=name, app=app(folder, request.param, max_loras=2))
    wait_until(lambda: lab.get(name, "/ready").status_code == 200)
    yield lab, name
    lab("delete", name=name)


def test_an_adapter_is_loaded_into_every_replica(served, folder):
    lab, name = served
    for _ in range(6):
        for adapter_name in ("one", "two", "m:three"):
            assert lab.post(name, chat(model=adapter_name)).status_code == 200
    made = order(lab, name, "/v1/load_lora_adapter", lora_name="mine", lora_path=str(folder / "one"))
    assert (made.status_code, made.json()["parent"]) == (200, "m"), made.text
    for _ in range(12):  # whichever replica is asked
        assert lab.post(name, chat(model="mine")).status_code == 200
    assert "mine" in names(lab, name)
    # What one replica cannot do, none of them keeps.
    bad = order(lab, name, "/v1/load_lora_adapter", lora_name="bad", lora_path=str(folder / "nothing"))
    assert bad.json()["error"]["code"] == "model_not_found"
    # A replica that comes later has it as well.
    (deployment,) = [one for one in lab("pids", name=name) if not one.startswith(("desk", "gateway"))]
    old = lab("pids", name=name)[deployment]
    os.kill(old[0], signal.SIGKILL)
    wait_until(lambda: _two_others(lab("pids", name=name)[deployment], old[0]), timeout=60)
    for _ in range(12):
        answer = wait_until(lambda: (a := lab.post(name, chat(model="mine"))).status_code != 503 and a)
        assert answer.status_code == 200, answer.text
    gone = order(lab, name, "/v1/unload_lora_adapter", lora_name="mine")
    assert gone.status_code == 200, gone.text
    for _ in range(12):
        assert lab.post(name, chat(model="mine")).status_code == 404


def _two_others(pids, old):
    return len(pids) == 2 and None not in pids and old not in pids


def test_orders_are_for_administrators(served, folder):
    lab, name = served
    body = {"lora_name": "mine", "lora_path": str(folder / "one")}
    assert lab.post(name, body, "/v1/load_lora_adapter").status_code == 401
    assert order(lab, name, "/v1/load_lora_adapter", **{**body, "lora_path": "/etc"}).status_code == 400


def test_new_folders_are_found(served, folder):
    lab, name = served
    late = f"late-{name}"
    adapter(folder, late)
    wait_until(lambda: late in names(lab, name))
    wait_until(lambda: lab.post(name, chat(model=late)).status_code == 200)
