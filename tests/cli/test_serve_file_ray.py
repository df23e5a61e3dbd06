"""One config file, two applications: served by our command and by Ray's own, and taken down without a trace."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
import yaml
from cli_lines import wait_for_line

pytestmark = pytest.mark.ray
BUILDER = "trunnion_ray.serve:build_openai_app"
SMALL = {"engine": "sim", "ray_actor_options": {"num_cpus": 0.1}, "graceful_shutdown_timeout_s": 2}
BROKEN = {**SMALL, "name": "broken", "config": {"tokenizer": "/nowhere/at/all"}, "max_constructor_retry_count": 1}
APPLICATIONS = [
    {
        "name": "many",
        "route_prefix": "/many",
        "import_path": BUILDER,
        "args": {"models": [{**SMALL, "name": "a", "adapters": {"loud": "unused"}}, BROKEN]},
    },
    {
        "name": "alone",
        "route_prefix": "/alone",
        "import_path": BUILDER,
        "args": {
            "models": [
                {**SMALL, "name": "only", "config": {"seed": 7, "tpot": 0.02}, "graceful_shutdown_timeout_s": 20}
            ]
        },
    },
]
OWN = """
from ray import serve

@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Echo:
    def __call__(self, request):
        return "mine"

app = Echo.bind()
"""
MARK = "TRUNNION_TEST_MARK"
FREE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, timeout=60):
    end = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
    return result


def marked(value):
    """Return the living processes that were started with a mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            if state != "Z" and f"{MARK}={value}".encode() in (process / "environ").read_bytes():
                found.append((int(process.name), (process / "cmdline").read_bytes()[:120]))
        except OSError:
            continue
    return found


@pytest.fixture
def mark():
    """Mark all processes that a test starts, and see that none is left."""
    given = str(uuid.uuid4())
    yield {MARK: given, **FREE}

    try:
        wait_until(lambda: not marked(given), timeout=15)
    except AssertionError:
        remains = marked(given)
        for pid, _ in remains:
            os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"left behind: {remains}") from None


def write(folder, applications, name="serve.yaml", **more):
    (folder / name).write_text(yaml.safe_dump({**more, "applications": applications}), encoding="utf-8")
    return name


def answer(url, model):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        try:
            whole = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "hello"}], max_tokens=3
            )
        except (openai.APIStatusError, openai.APIConnectionError):
            return None
    return whole.choices[0].message.content


def read_stream(url, model, begun):
    """Return a stream of some seconds; set the event once it has begun."""
    body = {"model": model, "prompt": "hello", "max_tokens": 150, "stream": True}
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as stream:
        said = ""
        for piece in stream.iter_text():
            said += piece
            begun.set()
        return said


def check_both(url):
    """Both applications answer, by Python's client; the broken model is told, and keeps nobody from answering."""
    plain, loud = (wait_until(lambda model=model: answer(f"{url}/many", model)) for model in ("a", "loud"))
    assert loud == loud.upper() != plain
    assert wait_until(lambda: answer(f"{url}/alone", "only")) != plain
    ready = httpx.get(f"{url}/many/ready", timeout=10)
    assert (ready.status_code, ready.json()["models"]) == (503, {"a": True, "broken": False})
    return httpx.get(f"{url}/alone/ready", timeout=10).json()["topology"]


def test_the_command_serves_a_file_until_ctrl_c(cli, mark, tmp_path):
    (tmp_path / "own_program.py").write_text(OWN)
    mine = {"name": "mine", "route_prefix": "/mine", "import_path": "own_program:app"}
    (tmp_path / "lost_program.py").write_text("raise RuntimeError('it cannot even be imported')")
    lost = {"name": "lost", "route_prefix": "/lost", "import_path": "lost_program:app"}
    path = write(tmp_path, [*APPLICATIONS, mine, lost], http_options={"port": 1})
    process = cli.start("serve", path, "--port", "0", env=mark)
    said = wait_for_line(process.stderr, "Ctrl-C stops it")
    assert "ready: model a of application many\n" in said
    (failed,) = [line for line in said.splitlines() if line.startswith("failed: model")]
    assert failed.startswith("failed: model broken of application many: ")
    assert "/nowhere/at/all" in failed
    assert "ready in part: application many, a alone at http://127.0.0.1:" in said
    assert "ready: application alone at http://127.0.0.1:" in said
    assert "ready: application mine at http://127.0.0.1:" in said
    (failed,) = [line for line in said.splitlines() if line.startswith("failed: application")]
    assert failed == "failed: application lost: RuntimeError: it cannot even be imported"
    url = said.partition("application alone at ")[2].split("/alone")[0]
    assert check_both(url) == "direct"
    assert httpx.get(f"{url}/mine", timeout=10).text == "mine"
    with ThreadPoolExecutor(1) as threads:
        begun = threading.Event()
        stream = threads.submit(read_stream, f"{url}/alone", "only", begun)
        assert begun.wait(timeout=30)
        result = cli.interrupt(process, timeout=60)
        assert stream.result(timeout=10).endswith("data: [DONE]\n\n")  # a request in flight ends first
    assert result.code == 0, result
    assert "stopping ..." in result.err
    assert result.out == ""
    assert "Traceback" not in result.err


def test_where_nothing_can_be_served_the_command_ends(cli, mark, tmp_path):
    app = {**APPLICATIONS[1], "args": {"models": [BROKEN]}}
    result = cli.run("serve", write(tmp_path, [app]), "--port", "0", env=mark, timeout=120)
    assert result.code == 1, result
    assert "failed: application alone: " in result.err
    assert "/nowhere/at/all" in result.err
    assert "error: nothing of serve.yaml could be served; the reasons are above" in result.err


def test_ctrl_c_while_models_start(cli, mark, tmp_path):
    slow = {**SMALL, "name": "slow", "config": {"startup_seconds": 300}}
    process = cli.start(
        "serve", write(tmp_path, [{**APPLICATIONS[1], "args": {"models": [slow]}}]), "--port", "0", env=mark
    )
    wait_for_line(process.stderr, "starting 1 application of serve.yaml")
    wait_until(lambda: any(b"ServeReplica" in line for _, line in marked(mark[MARK])))
    result = cli.interrupt(process, timeout=60)
    assert result.code == 0, result
    assert "Traceback" not in result.err


@pytest.fixture
def cluster(mark):
    """Run a cluster of its own, as `ray start` does, without disturbing others on this machine."""
    folder = tempfile.mkdtemp(prefix="r", dir="/tmp")
    ports = {name: free_port() for name in ("port", "dashboard-port", "dashboard-agent-listen-port")}
    shared = {**mark, "RAY_AUTH_MODE": "disabled"}
    environment = {**os.environ, **shared, "RAY_TMPDIR": folder}
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=4"]
    command += ["--node-ip-address=127.0.0.1"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    command += ["--object-store-memory=100000000", f"--ray-client-server-port={free_port()}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    try:
        url = f"http://127.0.0.1:{ports['dashboard-port']}"
        wait_until(lambda: _alive(url), timeout=200)
        yield {"RAY_ADDRESS": f"127.0.0.1:{ports['port']}", "dashboard": url, **shared}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        for pid, _ in marked(mark[MARK]):  # helpers of Ray's dashboard take their time
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def _alive(url):
    try:
        return httpx.get(f"{url}/api/serve/applications/", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.mark.long
@pytest.mark.timeout(900)
def test_rays_own_command_deploys_the_same_file_and_ours_stands_beside_it(cli, cluster, tmp_path):
    port = free_port()
    dashboard = cluster.pop("dashboard")
    write(tmp_path, APPLICATIONS, http_options={"host": "127.0.0.1", "port": port})
    command = [sys.executable, "-m", "ray.serve.scripts", "deploy", "serve.yaml", "--address", dashboard]
    environment = {**os.environ, **cluster}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    url = f"http://127.0.0.1:{port}"
    assert check_both(url) == "proxy"

    assert cli.run("serve", "serve.yaml", "--port", "0", env=cluster).code == 2
    clash = cli.run("serve", write(tmp_path, APPLICATIONS[1:], "clash.yaml"), env=cluster)
    assert clash.code == 2
    assert "Serve runs an application 'alone' already" in clash.err
    assert answer(f"{url}/alone", "only")
    path_taken = [{**APPLICATIONS[1], "name": "other"}]
    assert (
        "/alone belongs to application 'alone'"
        in cli.run("serve", write(tmp_path, path_taken, "b.yaml"), env=cluster).err
    )

    more = [{**APPLICATIONS[1], "name": "more", "route_prefix": "/more"}]
    process = cli.start("serve", write(tmp_path, more, "more.yaml"), env=cluster)
    said = wait_for_line(process.stderr, "Ctrl-C stops it")
    assert "cannot be changed" not in said  # nobody asked for another address
    assert f"ready: application more at {url}/more/v1" in said
    assert answer(f"{url}/more", "only")
    assert answer(f"{url}/many", "a")
    result = cli.interrupt(process, timeout=60)
    assert result.code == 0, result
    assert answer(f"{url}/more", "only") is None
    check_both(url)
