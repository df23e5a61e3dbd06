"""Files and batches on Ray Serve: any replica answers for all of them, and the death of one loses nothing."""

import contextlib
import json
import os
import signal
import time

import openai
import pytest

from trunnion.errors import ConfigError
from trunnion_ray.serve import build_openai_app

from .conftest import sim, wait_until

pytestmark = pytest.mark.ray
CHAT = "/v1/chat/completions"


def line(custom_id, model="m"):
    body = {"model": model, "max_tokens": 4, "messages": [{"role": "user", "content": f"Say {custom_id}"}]}
    return {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": body}


@contextlib.contextmanager
def served(lab, name, folder, models, **settings):
    """Run an application with a folder for batches; yield a client."""
    http = {"batches": {"folder": str(folder), "lines_in_flight": 4, **settings}}
    lab("run", name=name, app={"models": models, "http": http}, timeout=120)
    try:
        wait_until(lambda: lab.get(name, "/ready").status_code == 200)
        with openai.OpenAI(base_url=f"{lab.url(name)}/v1", api_key="none", max_retries=3) as client:
            yield client
    finally:
        lab("delete", name=name)


def begin(client, lines):
    data = "".join(json.dumps(one) + "\n" for one in lines).encode()
    made = client.files.create(file=("in.jsonl", data), purpose="batch")
    return client.batches.create(input_file_id=made.id, endpoint=CHAT, completion_window="24h")


def wait(client, batch, condition=lambda seen: seen.status in {"completed", "failed", "expired", "cancelled"}):
    end = time.monotonic() + 90
    while not condition(seen := client.batches.retrieve(batch.id)):
        assert time.monotonic() < end, seen
        time.sleep(0.1)
    return seen


def lines_of(client, file_id):
    return [json.loads(one) for one in client.files.content(file_id).text.splitlines()]


def owner(folder, batch):
    """Return what the last lease of a batch says."""
    path = folder / "everybody" / "batches" / batch.id
    last = max(path.glob("lease-*[0-9]"), key=lambda found: int(found.name.removeprefix("lease-")))
    return json.loads(last.read_bytes())


def test_replicas_share_the_batches_and_take_over_from_the_dead(lab, tmp_path):
    model = {**sim("m", tpot=0.05, slots=8), "num_replicas": 2}
    with served(lab, "batched", tmp_path, [model]) as client:
        batch = begin(client, [line(f"r{number}") for number in range(120)])
        wait(client, batch, lambda seen: seen.request_counts.completed > 5)
        killed = owner(tmp_path, batch)["pid"]
        assert killed in lab("pids", name="batched")["m"]
        os.kill(killed, signal.SIGKILL)
        done = wait(client, batch)
        found = lines_of(client, done.output_file_id)
        assert owner(tmp_path, batch)["pid"] != killed
    assert (done.status, done.request_counts.completed, done.error_file_id) == ("completed", 120, None)
    assert sorted(one["custom_id"] for one in found) == sorted(f"r{number}" for number in range(120))
    assert {one["id"].split("-")[1] for one in found} == {"1", "2"}, "the first owner's answers were kept"


def test_a_wish_to_cancel_reaches_whoever_runs_it(lab, tmp_path):
    model = {**sim("m", tpot=0.05, slots=8), "num_replicas": 2}
    with served(lab, "cancelled", tmp_path, [model]) as client:
        batch = begin(client, [line(f"r{number}") for number in range(2000)])
        wait(client, batch, lambda seen: seen.request_counts.completed > 3)
        assert client.batches.cancel(batch.id).status == "cancelling"
        done = wait(client, batch)
        assert done.status == "cancelled"
        answered, left = lines_of(client, done.output_file_id), lines_of(client, done.error_file_id)
    assert 3 < len(answered) < 2000
    assert len(answered) + len(left) == 2000


def test_behind_a_gateway_a_batch_may_ask_all_models(lab, tmp_path):
    models = [{**sim("m", slots=8), "adapters": {"loud": "unused"}}, sim("other/model-1.5", seed=7, slots=8)]
    with served(lab, "gated", tmp_path, models) as client:
        names = ("m", "loud", "other/model-1.5", "m:loud")
        done = wait(client, begin(client, [line(f"{name} {number}", name) for name in names for number in range(5)]))
        assert (done.status, done.request_counts.completed) == ("completed", 20)
        said = {
            one["custom_id"]: one["response"]["body"]["choices"][0]["message"]["content"]
            for one in lines_of(client, done.output_file_id)
        }
        failed = wait(client, begin(client, [line("a", "absent")]))
        pid = lab("pids", name="gated")["gateway"][0]
        assert owner(tmp_path, done)["pid"] == pid
        online = client.chat.completions.create(**line("m 0", "m")["body"])
    assert said["m 0"] == online.choices[0].message.content
    assert all(said[f"{name} 0"].isupper() for name in ("loud", "m:loud"))
    assert failed.errors.data[0].code == "model_not_found"


def test_a_relative_folder_is_refused():
    """Every replica would take it from where it happens to run."""
    with pytest.raises(ConfigError, match="absolute path") as caught:
        build_openai_app({"models": [sim("m")], "http": {"batches": {"folder": "batches"}}})
    assert caught.value.param == "http.batches.folder"
