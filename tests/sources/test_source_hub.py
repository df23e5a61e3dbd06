"""Models on the Hub: a fake Hub, and processes of their own, since the library reads its settings once."""

import contextlib
import json
import threading
import time
from pathlib import Path

import pytest
from source_lab import finished, model_files, read_all, start_fetch
from source_servers import CHUNK, FakeHub, FileServer, served

from trunnion_sources.config import HubConfig
from trunnion_sources.weights import choose

pytestmark = pytest.mark.slow

FILES = model_files()


@pytest.fixture
def ask(hub, tmp_path):
    """Fetch from the fake Hub in a process of its own."""
    hub.repositories["org/name"] = dict(FILES)

    def run(reference, *, revision=None, **more):
        wanted = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1", **more}
        return finished(start_fetch(reference, tmp_path / "cache", revision=revision, **wanted))

    return run


def counted(hub):
    return sum(count for path, count in hub.gets.items() if "/resolve/" in path)


def test_a_repository_is_fetched_once_by_either_name(hub, ask):
    first = ask("hf://org/name")
    assert read_all(first["path"]) == FILES
    assert "fetching" in first["phases"]
    assert counted(hub) == len(FILES)
    assert ask("org/name")["path"] == first["path"]
    assert counted(hub) == len(FILES)


def test_one_format_of_the_weights_is_enough(hub, ask):
    hub.repositories["org/name"] |= {"pytorch_model.bin": b"old", "onnx/model.onnx": b"other", "README.md": b"# me"}
    assert read_all(ask("org/name")["path"]) == FILES


def test_allow_names_what_is_taken(ask):
    taken = ask("org/name", TRUNNION_SOURCES='{"hub": {"allow": ["config.json"], "workers": 1}}')
    assert set(read_all(taken["path"])) == {"config.json"}


def test_revisions(hub, ask):
    hub.revisions["v1"] = FakeHub.SHA
    assert read_all(ask("hf://org/name@v1")["path"]) == FILES
    assert read_all(ask("org/name", revision="v1")["path"]) == FILES
    assert read_all(ask("hf://org/name@v1", revision="v1")["path"]) == FILES
    assert ask("hf://org/name@v1", revision="v2")["error"]["type"] == "ConfigError"
    missing = ask("hf://org/name@v9")["error"]
    assert (missing["type"], missing["param"]) == ("ModelNotFound", "revision")


def test_the_token_comes_from_the_environment(hub, ask):
    hub.private.add("org/name")
    error = ask("org/name")["error"]
    assert error["type"] == "ModelNotFound"
    assert "set HF_TOKEN" in error["message"]
    assert read_all(ask("org/name", HF_TOKEN="secret")["path"]) == FILES


def test_gated_says_so(hub, ask):
    hub.gated.add("org/name")
    error = ask("org/name", HF_TOKEN="secret")["error"]
    assert error["type"] == "PermissionDenied"
    assert "accept its terms" in error["message"]


def test_no_such_model_and_no_such_path(ask):
    error = ask("org/nowhere")["error"]
    assert error["type"] == "ModelNotFound"
    assert "no path here has that name" in error["message"]


def test_offline(hub, ask):
    error = ask("org/name", HF_HUB_OFFLINE="1")["error"]
    assert error["type"] == "ModelNotFound"
    assert "unset HF_HUB_OFFLINE, fetch it once with a connection, or name a path" in error["message"]
    hub.repositories["org/name"]["pytorch_model.bin"] = b"not wanted"
    folder = ask("org/name")["path"]
    asked = len(hub.seen)
    assert ask("org/name", HF_HUB_OFFLINE="1")["path"] == folder
    assert len(hub.seen) == asked
    (Path(folder) / "model.safetensors").unlink()
    assert ask("org/name", HF_HUB_OFFLINE="1")["error"]["type"] == "ModelNotFound"


def test_what_other_libraries_fetched_is_found_offline(ask, tmp_path):
    folder = ask("org/name")["path"]
    for record in tmp_path.glob("cache/models/*/hub.json"):
        record.unlink()
    assert ask("org/name", HF_HUB_OFFLINE="1")["path"] == folder


def test_a_hub_that_is_down(hub, ask):
    hub.refuse = 503
    error = ask("org/name")["error"]
    assert (error["type"], error["retryable"]) == ("Transient", True)
    hub.refuse = None
    folder = ask("org/name")["path"]
    hub.refuse = 503
    assert ask("org/name")["path"] == folder


def test_corrupt_weights_are_fetched_again(hub, ask):
    hub.lies["model.safetensors"] = bytes(len(FILES["model.safetensors"]))
    hub.lies_left = 1
    assert read_all(ask("org/name")["path"]) == FILES


def test_corrupt_weights_are_never_returned(hub, ask):
    hub.lies["model.safetensors"] = bytes(len(FILES["model.safetensors"]))
    hub.lies_left = 99
    error = ask("org/name")["error"]
    assert error["type"] == "Transient"
    assert "model.safetensors" in error["message"]
    taken = ask("org/name", TRUNNION_SOURCES='{"hub": {"verify": false}}')
    assert read_all(taken["path"])["model.safetensors"] == hub.lies["model.safetensors"]


def test_a_killed_process_is_gone_on_from(hub, tmp_path):
    hub.repositories["org/name"] = dict(FILES)
    hub.hang_after = 8 * CHUNK
    wanted = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
    weights = f"/org/name/resolve/{FakeHub.SHA}/model.safetensors"
    process = start_fetch("org/name", tmp_path / "cache", **wanted)
    wait_for(lambda: hub.sent[weights] == 8 * CHUNK)
    (part,) = (tmp_path / "hub").rglob("blobs/*.part")
    wait_for(lambda: part.stat().st_size >= 4 * CHUNK)
    process.kill()
    process.communicate()
    kept = part.stat().st_size
    hub.hang_after = None
    before = hub.sent[weights]
    answer = finished(start_fetch("org/name", tmp_path / "cache", **wanted))
    assert read_all(answer["path"]) == FILES
    assert hub.sent[weights] - before == len(FILES["model.safetensors"]) - kept
    assert not list((tmp_path / "hub").rglob("*.part"))


def test_processes_with_caches_of_their_own_share_the_hubs(hub, tmp_path):
    hub.repositories["org/name"] = dict(FILES)
    hub.pause = 0.05
    wanted = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_XET": "1"}
    processes = [start_fetch("org/name", tmp_path / own, **wanted) for own in ("one", "two")]
    assert [read_all(finished(process)["path"]) for process in processes] == [FILES, FILES]
    assert hub.gets[f"/org/name/resolve/{FakeHub.SHA}/model.safetensors"] == 1


def test_the_token_stays_with_the_hub(hub, ask):
    """The Hub sends large files from elsewhere, where the token has no business."""
    store = FileServer()
    store.files["/weights"] = FILES["model.safetensors"]
    hub.private.add("org/name")
    with served(store) as url:
        hub.elsewhere["model.safetensors"] = f"{url}/weights"
        assert read_all(ask("org/name", HF_TOKEN="secret")["path"]) == FILES
    assert store.gets["/weights"] == 1
    assert not any("authorization" in map(str.lower, headers) for _, _, headers in store.seen)
    assert any("authorization" in map(str.lower, headers) for _, _, headers in hub.seen)


@pytest.mark.parametrize(("workers", "together"), [(1, False), (2, True)])
def test_workers_fetch_side_by_side(hub, ask, workers, together):
    hub.repositories["org/name"] = {"a.safetensors": b"a" * 999, "b.safetensors": b"b" * 999}
    barrier, send = threading.Barrier(2), hub.send

    def meeting(handler, path, data, **headers):
        if handler.command == "GET":
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait(timeout=10 if together else 0.5)
        return send(handler, path, data, **headers)

    hub.send = meeting
    taken = ask("org/name", TRUNNION_SOURCES=json.dumps({"hub": {"workers": workers}}))
    assert read_all(taken["path"]) == hub.repositories["org/name"]
    assert barrier.broken is not together


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


NAMES = ["config.json", "model.safetensors", "pytorch_model.bin", "model.onnx", "x.gguf", "README.md", "code.py"]


@pytest.mark.parametrize(
    ("settings", "names", "chosen"),
    [
        ({}, NAMES, ["config.json", "model.safetensors", "code.py"]),
        ({"weights": "bin"}, NAMES, ["config.json", "pytorch_model.bin", "code.py"]),
        ({"weights": "safetensors"}, NAMES[2:], ["pytorch_model.bin", "model.onnx", "x.gguf", "code.py"]),
        ({"weights": "all"}, NAMES, NAMES),
        ({}, ["config.json", "pytorch_model.bin", "tf_model.h5"], ["config.json", "pytorch_model.bin"]),
        ({}, ["x.Q4.gguf", "y.gguf"], ["x.Q4.gguf", "y.gguf"]),
        ({}, ["model.safetensors", "2_Dense/pytorch_model.bin"], ["model.safetensors", "2_Dense/pytorch_model.bin"]),
        ({}, ["a.safetensors", "original/x.pth", "onnx/m.onnx", "voices/v.pt"], ["a.safetensors", "voices/v.pt"]),
        ({}, ["onnx/m.onnx"], ["onnx/m.onnx"]),
        ({"allow": ("*.gguf", "README.md")}, NAMES, ["x.gguf", "README.md"]),
        ({"ignore": ("*.py",)}, NAMES, ["config.json", "model.safetensors"]),
    ],
)
def test_which_files_are_taken(settings, names, chosen):
    assert choose(names, HubConfig(**settings)) == chosen
