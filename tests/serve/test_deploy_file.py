"""How a file becomes calls of Serve, and how Serve's words become ours; Serve itself is a fake here."""

import importlib
from types import SimpleNamespace

import pytest
import yaml
from ray.serve._private.common import DeploymentStatus
from ray.serve.schema import ApplicationStatus, ServeApplicationSchema

from trunnion.errors import ConfigError
from trunnion_ray.serve import deploy_file
from trunnion_ray.serve.config_file import read_config_file
from trunnion_ray.serve.deploy_file import FileDeployment, Report, short_reason
from trunnion_ray.serve.run import _merged

BUILDER = "trunnion_ray.serve:build_openai_app"
REPLACING = "a replica is lost and is being replaced; the others answer"
TRACEBACK = """The deployment failed to start 1 times in a row. See controller logs for details. Error:
\x1b[36mray::ServeReplica:many:broken.initialize_and_get_metadata()\x1b[39m (pid=1, ip=127.0.0.1)
  File "/x/replica.py", line 1, in start
    raise error
           ^^^^^^^^^^
RuntimeError: Traceback (most recent call last):
  File "/x/engine.py", line 3, in start
trunnion.errors.ModelNotFound: no model at /nowhere: the path does not exist"""


def app(name, *models, **args):
    models = [{"name": model, "engine": "sim"} for model in models]
    return {"name": name, "route_prefix": f"/{name}", "import_path": BUILDER, "args": {"models": models, **args}}


@pytest.fixture
def deployment(tmp_path):
    def make(*applications, **more):
        path = tmp_path / "serve.yaml"
        path.write_text(yaml.safe_dump({**more, "applications": list(applications)}))
        return FileDeployment(read_config_file(path))

    return make


@pytest.fixture
def serve(monkeypatch):
    """Stand for a Serve: what runs, what was declared to it, and what it is told."""
    fake = SimpleNamespace(
        controller=None, declared=[], applications={}, started=[], applied=[], shut_down=0, closed=[]
    )

    def ensure(topology, **options):
        fake.started.append((topology, options))

    def shutdown():
        fake.shut_down += 1

    def apply(config):
        fake.applied.append(config)
        running = {one.name: [model["name"] for model in one.args.get("models", ())] for one in config.applications}
        fake.applications = {
            name: SimpleNamespace(deployments=dict.fromkeys(models)) for name, models in running.items()
        }

    monkeypatch.setattr(deploy_file, "ensure_serve", ensure)
    monkeypatch.setattr(deploy_file, "close_doors", lambda drains, *, most: fake.closed.append((drains, most)))
    monkeypatch.setattr(deploy_file.serve, "status", lambda: SimpleNamespace(applications=fake.applications))
    monkeypatch.setattr(deploy_file.serve, "shutdown", shutdown)
    for name, value in {
        "running_controller": lambda: fake.controller,
        "declared_applications": lambda: fake.declared,
        "target_capacity": lambda: 50.0,
        "running_http_address": lambda: ("127.0.0.1", 8123),
        "apply_config": apply,
    }.items():
        monkeypatch.setattr(deploy_file._ray_private, name, value)
    return fake


def test_serve_is_started_as_the_file_says(deployment, serve):
    made = deployment(
        app("a", "m", topology="direct"),
        http_options={"port": 1, "keep_alive_timeout_s": 7, "root_path": "/x"},
        proxy_location="HeadOnly",
        controller_options={"runtime_env": {"env_vars": {"A": "b"}}},
        target_capacity=80,
    )
    assert made.start(host="0.0.0.0", port=5) == ("127.0.0.1", 8123)
    ((topology, options),) = serve.started
    assert (topology, options["host"], options["port"]) == ("direct", "0.0.0.0", 5)
    assert options["further"] == {
        "http_options": {"port": 1, "keep_alive_timeout_s": 7, "root_path": "/x"},
        "proxy_location": "HeadOnly",
        "controller_options": {"runtime_env": {"env_vars": {"A": "b"}}},
    }
    (config,) = serve.applied
    assert [one.name for one in config.applications] == ["a"]
    assert config.target_capacity == 80
    assert made.stop()
    assert [list(config.applications) for config in serve.applied[1:]] == [[]]  # requests in flight end first
    assert serve.shut_down == 1


def test_what_others_run_is_left_alone(deployment, serve):
    serve.controller = object()
    serve.declared = [ServeApplicationSchema(name="theirs", route_prefix="/theirs", import_path="their:app")]
    serve.applications = {"theirs": None}
    made = deployment(app("a", "m"))
    made.start(host="127.0.0.1", port=5)
    assert [one.name for one in serve.applied[-1].applications] == ["theirs", "a"]
    assert serve.applied[-1].target_capacity == 50
    serve.declared = list(serve.applied[-1].applications)
    assert made.stop()
    assert [one.name for one in serve.applied[-1].applications] == ["theirs"]
    assert serve.shut_down == 0


@pytest.mark.parametrize(
    ("theirs", "param"),
    [({"name": "b", "route_prefix": "/b"}, "applications[1].name"),
     ({"name": "theirs", "route_prefix": "/b"}, "applications[1].route_prefix")],
)  # fmt: skip
def test_a_name_or_path_that_is_taken_is_refused_and_not_taken_down(deployment, serve, theirs, param):
    serve.controller = object()
    serve.declared = [ServeApplicationSchema(import_path="their:app", **theirs)]
    serve.applications = {theirs["name"]: None}
    made = deployment(app("a", "m"), app("b", "m"))
    with pytest.raises(ConfigError) as caught:
        made.start(host="127.0.0.1", port=5)
    assert caught.value.param == param
    assert made.stop()
    assert (serve.applied, serve.shut_down) == ([], 0)


def test_what_does_not_go_in_time_is_told(deployment, serve):
    serve.controller = object()
    made = deployment(app("a", "m"))
    made.start(host="127.0.0.1", port=5)
    made._beside = lambda _: made.file.to_ray()
    assert made.stop(timeout=0) is False
    assert serve.closed == [({"a": {"m": 60.0}}, 0)]


def test_a_serve_of_ours_waits_as_long_as_the_file_lets_requests_end(deployment, serve, monkeypatch):
    made = deployment(app("a", "m"))
    made.start(host=None, port=None)
    made._beside = lambda _: made.file.to_ray()
    clock = iter(range(0, 1000, 30))
    monkeypatch.setattr(
        importlib.import_module("trunnion_ray.serve.run"),
        "time",
        SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None),
    )
    assert made.stop()
    assert next(clock) == 120  # 60 s of the model's and 20 s of Serve's had to be over
    assert serve.closed == [({"a": {"m": 60.0}}, None)]
    assert serve.shut_down == 1


def test_what_serve_is_started_with_is_the_address_we_chose_and_the_rest_of_the_file():
    start = {
        "http_options": {"host": "h", "port": 1},
        "controller_options": {"runtime_env": {"env_vars": {"A": "ours", "B": "ours"}}},
    }
    further = {
        "http_options": {"host": "theirs", "port": 2, "root_path": "/x"},
        "proxy_location": "HeadOnly",
        "controller_options": {"runtime_env": {"env_vars": {"B": "theirs"}}},
    }
    assert _merged(start, further) == {
        "http_options": {"host": "h", "port": 1, "root_path": "/x"},
        "proxy_location": "HeadOnly",
        "controller_options": {"runtime_env": {"env_vars": {"A": "ours", "B": "theirs"}}},
    }
    assert _merged({"http_options": {}}, {}) == {"http_options": {}}


def status(whole, message="", /, **deployments):
    return SimpleNamespace(
        status=ApplicationStatus(whole),
        message=message,
        deployments={
            name: SimpleNamespace(status=DeploymentStatus(state), message=said, replica_states=dict(replicas))
            for name, (state, said, *replicas) in deployments.items()
        },
    )


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        (None, [Report("x", None, "starting")]),
        (status("DEPLOYING", a=("UPDATING", ""), b=("HEALTHY", ""), gateway=("HEALTHY", "")),
         [Report("x", "a", "starting"), Report("x", "b", "ready"), Report("x", None, "starting")]),
        (status("RUNNING", a=("HEALTHY", ""), b=("UPSCALING", "more"), gateway=("HEALTHY", "")),
         [Report("x", "a", "ready"), Report("x", "b", "ready"), Report("x", None, "ready")]),
        (status("DEPLOY_FAILED", "two of them", a=("DEPLOY_FAILED", TRACEBACK), b=("UPDATING", "")),
         [Report("x", "a", "failed", "no model at /nowhere: the path does not exist"), Report("x", "b", "starting"),
          Report("x", None, "starting", "no model at /nowhere: the path does not exist")]),
        (status("DEPLOY_FAILED", "two of them", a=("DEPLOY_FAILED", "gone"), b=("HEALTHY", "")),
         [Report("x", "a", "failed", "gone"), Report("x", "b", "ready"), Report("x", None, "failed", "gone")]),
        (status("UNHEALTHY", "", a=("HEALTHY", ""), b=("HEALTHY", ""), gateway=("UNHEALTHY", "dead")),
         [Report("x", "a", "ready"), Report("x", "b", "ready"), Report("x", "gateway", "failed", "dead"),
          Report("x", None, "failed", "dead")]),
        (status("UNHEALTHY", "", a=("UNHEALTHY", "died", ("RUNNING", 1), ("STARTING", 1)), b=("HEALTHY", "")),
         [Report("x", "a", "ready", REPLACING), Report("x", "b", "ready"), Report("x", None, "ready", REPLACING)]),
        (status("UNHEALTHY", "", a=("UNHEALTHY", "died", ("RUNNING", 1)), b=("UNHEALTHY", "gone", ("STARTING", 1))),
         [Report("x", "a", "ready", REPLACING), Report("x", "b", "failed", "gone"),
          Report("x", None, "failed", "gone")]),
        (status("DEPLOY_FAILED", "it\nValueError: cannot be built"),
         [Report("x", None, "failed", "ValueError: cannot be built")]),
    ],
)  # fmt: skip
def test_an_application_of_several_models_is_told_with_each(deployment, serve, running, expected):
    serve.applications = {"x": running}
    assert deployment(app("x", "a", "b")).look() == expected


def test_an_application_of_one_model_is_told_once(deployment, serve):
    serve.applications = {"x": status("RUNNING", a=("HEALTHY", ""))}
    assert deployment(app("x", "a")).look() == [Report("x", None, "ready")]
    serve.applications = {"x": status("DEPLOYING", a=("UPDATING", "it waits for 8 GPUs"))}
    assert deployment(app("x", "a")).look() == [Report("x", None, "starting", "it waits for 8 GPUs")]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("", ""),
        ("Failed to update.", "Failed to update."),
        (TRACEBACK, "no model at /nowhere: the path does not exist"),
        ("Traceback:\n  File \"x\", line 1\nModuleNotFoundError: No module named 'x'\n",
         "ModuleNotFoundError: No module named 'x'"),
        ("x\nray.exceptions.RayTaskError(EngineDead): trunnion.errors.EngineDead: the engine: d", "the engine: d"),
    ],
)  # fmt: skip
def test_a_reason_is_what_was_raised_last(message, reason):
    assert short_reason(message) == reason
