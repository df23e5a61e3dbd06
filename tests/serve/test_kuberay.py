"""The manifest for KubeRay: fields that its CRD has, and workers on which the replicas fit."""

import dataclasses
import json

import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from trunnion.errors import ConfigError, PluginNotFound
from trunnion.loader import PluginState
from trunnion_cli.main import main
from trunnion_ray.serve.config_file import read_config_file
from trunnion_ray.serve.elsewhere import ElsewhereRegistry
from trunnion_ray.serve.kuberay import ray_service
from trunnion_ray.serve.kuberay_notes import Cluster
from trunnion_ray.serve.planned import cpus_at_start, planned
from trunnion_ray.serve.topology import cluster_env_vars
from trunnion_ray.serve.workers import worker_groups

# Fields of RayService in ray.io/v1, of the schema in KubeRay's
# ray-operator/config/crd/bases/ray.io_rayservices.yaml (as of August 2026; those of 1.2 and later are a part of it).
# Below a pod's template they are Kubernetes' own, which that file repeats. A set: keys of any name, with those values.
ANY = object()
ENV = [{"name": str, "value": str, "valueFrom": {"secretKeyRef": {"name": str, "key": str, "optional": bool}}}]
AMOUNTS = {"requests": {ANY: str}, "limits": {ANY: str}}
CONTAINER = {
    "name": str, "image": str, "imagePullPolicy": str, "command": [str], "args": [str], "workingDir": str,
    "env": ENV, "resources": AMOUNTS,
    "ports": [{"name": str, "containerPort": int, "hostPort": int, "hostIP": str, "protocol": str}],
}  # fmt: skip
TEMPLATE = {
    "metadata": {"labels": {ANY: str}, "annotations": {ANY: str}},
    "spec": {
        "containers": [CONTAINER], "initContainers": [CONTAINER], "nodeSelector": {ANY: str}, "restartPolicy": str,
        "serviceAccountName": str, "terminationGracePeriodSeconds": int,
        "tolerations": [{"key": str, "operator": str, "value": str, "effect": str, "tolerationSeconds": int}],
    },
}  # fmt: skip
RAY_SERVICE = {
    "apiVersion": str,
    "kind": str,
    "metadata": {"name": str, "namespace": str},
    "spec": {
        "serveConfigV2": str,
        "excludeHeadPodFromServeSvc": bool,
        "upgradeStrategy": {"type": str},
        "rayClusterConfig": {
            "rayVersion": str,
            "enableInTreeAutoscaling": bool,
            "autoscalerOptions": {"upscalingMode": str, "idleTimeoutSeconds": int, "version": str},
            "headGroupSpec": {
                "serviceType": str, "enableIngress": bool, "rayStartParams": {ANY: str}, "template": TEMPLATE,
            },
            "workerGroupSpecs": [{
                "groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "numOfHosts": int,
                "idleTimeoutSeconds": int, "suspend": bool, "rayStartParams": {ANY: str}, "template": TEMPLATE,
            }],
        },
    },
}  # fmt: skip
REQUIRED = {
    "rayClusterConfig": ["headGroupSpec"],
    "headGroupSpec": ["template"],
    "workerGroupSpecs": ["groupName", "minReplicas", "maxReplicas", "template"],
    "containers": ["name", "image"],
    "ports": ["containerPort"],
    "env": ["name"],
}
BUILDER = "trunnion_ray.serve:build_openai_app"
GPU = {"device": "cuda"}


def check_fields(value, known, key=""):
    if isinstance(known, type):
        assert type(value) is known, f"{key}: {value!r}"
    elif isinstance(known, list):
        assert isinstance(value, list), key
        for item in value:
            check_fields(item, known[0], key)
    else:
        assert isinstance(value, dict), key
        assert set(REQUIRED.get(key, ())) <= set(value), key
        for name, inner in value.items():
            assert name in known or ANY in known, f"{key}.{name} is no field of KubeRay's"
            check_fields(inner, known.get(name, known.get(ANY)), name)


@pytest.fixture
def config(tmp_path):
    def write(*models, text=None, more=None, **args):
        one = {"name": "a", "import_path": BUILDER, "args": {"models": list(models), **args}}
        given = {**(more or {}), "applications": [one]}
        path = tmp_path / "config.yaml"
        path.write_text(text or yaml.safe_dump(given), encoding="utf-8")
        return read_config_file(path, engines=False)

    return write


def sim(name="s", **fields):
    return {"name": name, "engine": "sim", **fields}


def vllm(name="v", config=GPU, **fields):
    return {"name": name, "engine": "vllm", "model": "org/model", "config": config, **fields}


def made(file, **cluster):
    manifest, notes = ray_service(file, Cluster(**{"name": "llm", **cluster}))
    check_fields(manifest, RAY_SERVICE)
    return manifest["spec"]["rayClusterConfig"], notes


def groups(file):
    return {one.name: one for one in worker_groups(planned(file, ElsewhereRegistry()))}


def container(group):
    (one,) = group["template"]["spec"]["containers"]
    return one


def test_the_manifest_runs_the_file_to_the_letter(config, tmp_path):
    text = f"# mine\napplications:\n  - import_path: {BUILDER}\n    args: {{models: [{{name: s, engine: sim}}]}}\n"
    file = config(text=text)
    manifest, _ = ray_service(file, Cluster(name="llm", namespace="ml", image="mine:1"))
    check_fields(manifest, RAY_SERVICE)
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    assert manifest["metadata"] == {"name": "llm", "namespace": "ml"}
    assert manifest["spec"]["serveConfigV2"] == text
    ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"]))
    cluster = manifest["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"] == ray.__version__
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert {one["name"]: one["containerPort"] for one in container(head)["ports"]} == {
        "gcs-server": 6379, "dashboard": 8265, "client": 10001, "serve": 8000,
    }  # fmt: skip
    for group in (head, worker):
        assert container(group)["image"] == "mine:1"
        variables = {one["name"]: one.get("value") for one in container(group)["env"]}
        assert variables == cluster_env_vars()
        assert "livenessProbe" not in container(group)


def test_the_check_of_fields_can_fail():
    for wrong in (
        {"spec": {"rayClusterConfig": {"headGroupSpec": {"template": {}}, "headGroupSpecs": {}}}},
        {"spec": {"rayClusterConfig": {}}},
        {"spec": {"rayCluster": {}}},
        {"spec": {"rayClusterConfig": {"headGroupSpec": {"template": {}}, "workerGroupSpecs": [{"groupName": "x"}]}}},
        {"spec": {"serveConfigV2": {}, "rayClusterConfig": {"headGroupSpec": {"template": {}}}}},
    ):
        with pytest.raises(AssertionError):
            check_fields(wrong, RAY_SERVICE)


def test_workers_are_as_large_as_what_the_engines_ask_for(config):
    file = config(
        sim("one", config={"worker_cpus": 2, "tensor_parallel_size": 2}),
        sim("two", num_replicas=3, ray_actor_options={"num_cpus": 0.5, "memory": 7 * 2**30}),
        vllm("big", {**GPU, "tensor_parallel_size": 4}, num_replicas=2),
        vllm("small", autoscaling={"min_replicas": 1, "max_replicas": 5, "initial_replicas": 2}),
    )
    found = groups(file)
    assert set(found) == {"cpu", "gpu4", "gpu1"}
    cpu, big, small = found["cpu"], found["gpu4"], found["gpu1"]
    assert (cpu.cpu, cpu.gpu, cpu.memory) == (4, 0, 10 * 2**30)
    assert (cpu.minimum, cpu.maximum) == (4, 4)  # the memory of one replica is that of a node
    assert (big.cpu, big.gpu, big.minimum, big.maximum) == (1, 4, 2, 2)
    assert (small.gpu, small.minimum, small.initial, small.maximum) == (1, 1, 2, 5)
    cluster, _ = made(file, worker_memory=20)
    assert cluster["enableInTreeAutoscaling"] is True
    asked = {one["groupName"]: container(one)["resources"]["limits"] for one in cluster["workerGroupSpecs"]}
    assert asked == {
        "cpu": {"cpu": "4", "memory": "10Gi"},
        "gpu1": {"cpu": "1", "memory": "20Gi", "nvidia.com/gpu": "1"},
        "gpu4": {"cpu": "1", "memory": "80Gi", "nvidia.com/gpu": "4"},
    }
    counts = {
        one["groupName"]: (one["minReplicas"], one["replicas"], one["maxReplicas"])
        for one in cluster["workerGroupSpecs"]
    }
    assert counts == {"cpu": (4, 4, 4), "gpu1": (1, 2, 5), "gpu4": (2, 2, 2)}


def test_small_replicas_share_a_worker(config):
    found = groups(config(sim("a", ray_actor_options={"num_cpus": 0.1}, num_replicas=20), sim("b")))
    assert (found["cpu"].cpu, found["cpu"].minimum) == (1, 3)


@pytest.mark.parametrize(
    ("strategy", "ranks", "expected"),
    [("STRICT_PACK", 16, (16, 16, 1)), ("PACK", 16, (8, 8, 2)), ("PACK", 4, (4, 4, 1)), ("STRICT_SPREAD", 4, (1, 1, 4)),
     ("SPREAD", 3, (1, 1, 3))],
)  # fmt: skip
def test_bundles_lie_together_as_they_must(config, strategy, ranks, expected):
    settings = {**GPU, "tensor_parallel_size": ranks, "distributed_executor_backend": "ray"}
    (group,) = groups(config(vllm("v", settings, placement_group_strategy=strategy))).values()
    assert (group.cpu, group.gpu, group.minimum) == expected


def test_kinds_of_gpus_have_groups_of_their_own(config):
    fast = {"accelerator_type": "A100-80G"}
    file = config(
        vllm("any"),
        vllm("fast", ray_actor_options=fast),
        vllm("bundled", placement_group_bundles=[{"CPU": 1, "GPU": 1, "accelerator_type:L4": 0.001}]),
        sim("special", ray_actor_options={"resources": {"disk": 2}}),
    )
    cluster, notes = made(file)
    workers = {one["groupName"]: one for one in cluster["workerGroupSpecs"]}
    assert set(workers) == {"gpu1", "gpu1-a100-80g", "gpu1-l4", "cpu-disk"}

    def offered(group):
        return json.loads(json.loads(workers[group]["rayStartParams"]["resources"]))

    assert offered("gpu1-a100-80g") == {"accelerator_type:A100-80G": 1}
    assert offered("gpu1-l4") == {"accelerator_type:L4": 1}
    assert offered("cpu-disk") == {"disk": 2}
    assert workers["gpu1"]["rayStartParams"] == {}
    assert any("A100-80G" in note and "nodeSelector" in note for note in notes)
    assert workers["gpu1"]["template"]["spec"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "tolerations" not in workers["cpu-disk"]["template"]["spec"]


def test_options_of_the_files_deployments_win(config):
    text = yaml.safe_dump(
        {
            "applications": [
                {
                    "name": "a",
                    "import_path": BUILDER,
                    "deployments": [{"name": "s", "num_replicas": 4, "ray_actor_options": {"num_cpus": 3}}],
                    "args": {"models": [sim()]},
                }
            ]
        }
    )
    file = config(text=text)
    (group,) = groups(file).values()
    assert (group.cpu, group.minimum) == (3, 4)
    assert cpus_at_start(file) == 12


def test_keys_come_from_a_secret(config):
    remote = {
        "name": "far",
        "engine": "openai",
        "model": "m",
        "config": {"base_url": "http://x/v1", "api_key_env": "FAR_KEY", "headers_env": {"x-team": "TEAM"}},
        "env_vars": {"TEAM": "known"},
    }
    cluster, notes = made(config(remote, http={"api_keys_env": "KEYS", "admin_keys_env": "ADMINS"}))
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        secret = {one["name"]: one["valueFrom"] for one in container(group)["env"] if "valueFrom" in one}
        assert secret == {
            name: {"secretKeyRef": {"name": "llm-secrets", "key": name}} for name in ("ADMINS", "FAR_KEY", "KEYS")
        }
    assert any("kubectl create secret generic llm-secrets" in note and "KEYS=" in note for note in notes)


def test_the_proxy_topology_needs_no_variables(config):
    cluster, _ = made(config(sim(), topology="proxy"))
    assert container(cluster["headGroupSpec"])["env"] == []
    assert "enableInTreeAutoscaling" not in cluster


def test_another_port_is_told_everywhere(config):
    cluster, _ = made(config(sim(), more={"http_options": {"port": 8123}}))
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert {"name": "serve", "containerPort": 8123} in container(group)["ports"]


def test_what_is_left_to_do_is_noted(config):
    text = f"""
applications:
  - {{name: a, import_path: "{BUILDER}", args: {{models: [{{name: v, engine: vllm, model: /models/v}}]}}}}
  - {{name: mine, route_prefix: /mine, import_path: "chain:app"}}
"""
    _, notes = made(config(text=text))
    said = "\n".join(notes)
    for words in ("--image", "--worker-memory", "/models/v", "mine", "Where model v runs"):
        assert words in said
    assert not any("Where model" in note for note in made(config(vllm()))[1])
    assert not any("image" in note.split(":")[0] for note in made(config(vllm()), image="mine:1")[1])


def test_the_number_of_workers_can_be_said(config):
    cluster, _ = made(config(sim(num_replicas=3)), min_workers=1, max_workers=7)
    (group,) = cluster["workerGroupSpecs"]
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (1, 3, 7)
    assert cluster["enableInTreeAutoscaling"] is True
    with pytest.raises(ConfigError, match="--max-workers"):
        made(config(sim(num_replicas=3)), max_workers=2)


@pytest.mark.parametrize(
    ("fields", "more", "cluster", "words"),
    [
        ({}, {}, {"name": "Not_A_Name"}, "no name for a service"),
        ({}, {}, {"name": "x" * 48}, "47 at most"),
        ({}, {"http_options": {"host": "127.0.0.1"}}, {}, "no other pod reaches"),
        ({"router": {"router": "affinity"}}, {}, {}, "use topology='gateway'"),
        ({"engine": "auto"}, {}, {}, r"applications\[0\].args.models\[0\].engine: name the engine"),
    ],
)
def test_what_cannot_be_is_refused(config, fields, more, cluster, words):
    with pytest.raises(ConfigError, match=words):
        made(config({**sim(), **fields}, more=more), **cluster)


def test_engines_whose_library_is_missing_here_are_known(monkeypatch):
    registry = ElsewhereRegistry()
    missing = dataclasses.replace(registry.record("engine", "vllm"), state=PluginState.NOT_INSTALLED, reason="no vllm")
    monkeypatch.setattr(registry, "record", lambda _kind, name: missing if name == "vllm" else None)
    assert registry.engine("vllm").name == "vllm"
    with pytest.raises(PluginNotFound):
        registry.engine("vlm")


def test_the_command_writes_a_file_and_notes(tmp_path, capfd):
    path = tmp_path / "My config_1.yaml"
    path.write_text(f"applications:\n  - import_path: {BUILDER}\n    args: {{models: [{{name: s, engine: sim}}]}}\n")
    out = tmp_path / "out.yaml"
    assert (
        main(["kuberay", str(path), "-o", str(out), "--namespace", "ml", "--image", "mine:1", "--max-workers", "3"])
        == 0
    )
    manifest = yaml.safe_load(out.read_text())
    check_fields(manifest, RAY_SERVICE)
    assert manifest["metadata"] == {"name": "my-config-1", "namespace": "ml"}
    assert "note: " in capfd.readouterr().err
    assert "  serveConfigV2: |\n    applications:\n" in out.read_text()
    assert (
        main(["kuberay", str(path), "--name", "n", "--min-workers", "2", "--head-cpu", "4", "--head-memory", "9"]) == 2
    )
    assert "--max-workers" in capfd.readouterr().err
    assert main(["kuberay", str(path), "--head-cpu", "4", "--head-memory", "9", "--worker-memory", "5"]) == 0
    cluster = yaml.safe_load(capfd.readouterr().out)["spec"]["rayClusterConfig"]
    assert container(cluster["headGroupSpec"])["resources"]["limits"] == {"cpu": "4", "memory": "9Gi"}
    assert container(cluster["workerGroupSpecs"][0])["resources"]["requests"]["memory"] == "5Gi"
    path.write_text("applications: [{name: x}]\n")
    assert main(["kuberay", str(path)]) == 2
    assert "applications[0].import_path: is required" in capfd.readouterr().err
