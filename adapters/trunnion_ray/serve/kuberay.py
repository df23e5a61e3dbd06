"""Write the manifest of a KubeRay service that runs a config file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import ray
import yaml

from trunnion.errors import ConfigError

from .config_file import ServeFile
from .elsewhere import ElsewhereRegistry
from .kuberay_notes import Cluster, default_image, left_to_do, secret_variables
from .planned import planned
from .topology import cluster_env_vars
from .workers import WorkerGroup, worker_groups

_NAME: Final = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LONGEST: Final = 47
"""KubeRay puts up to 16 characters behind a service's name, and Kubernetes takes 63."""
_GIB: Final = 1 << 30
_PORTS: Final = {"gcs-server": 6379, "dashboard": 8265, "client": 10001}
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def ray_service(file: ServeFile, cluster: Cluster) -> tuple[dict[str, Any], list[str]]:
    """Return the manifest of a RayService (``ray.io/v1``), and notes on what is left to do.

    Raises:
        ConfigError: The name is none of Kubernetes', Serve would listen where no other pod reaches it, or an engine
            is left to be chosen.
        PluginError: An engine is not known.
    """
    _check_name(cluster.name)
    http = file.data.get("http_options") or {}
    if str(http.get("host", "0.0.0.0")) in _LOCAL:  # noqa: S104 - what Serve takes
        message = f"http_options.host is {http['host']}, which no other pod reaches; leave it out, or 0.0.0.0"
        raise ConfigError(message, param="http_options.host")
    port = int(http.get("port", 8000))
    plan = planned(file, ElsewhereRegistry())
    groups = worker_groups(plan) or [_plain_group()]
    variables = [] if file.topology == "proxy" else [_variable(*one) for one in sorted(cluster_env_vars().items())]
    secrets = sorted(set(secret_variables(file)))
    variables += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": f"{cluster.name}-secrets", "key": name}}}
        for name in secrets
    ]
    workers = [_worker_group(group, cluster, variables, port) for group in groups]
    grows = any(group["maxReplicas"] > group["minReplicas"] for group in workers)
    grows = grows or any(one.maximum > one.minimum for one in plan)
    manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": cluster.name, **({"namespace": cluster.namespace} if cluster.namespace else {})},
        "spec": {
            "serveConfigV2": file.text,
            "rayClusterConfig": {
                "rayVersion": ray.__version__,
                **({"enableInTreeAutoscaling": True} if grows else {}),
                "headGroupSpec": _head(cluster, variables, port),
                "workerGroupSpecs": workers,
            },
        },
    }
    return manifest, list(left_to_do(file, cluster, groups, secrets))


def to_yaml(manifest: Mapping[str, Any], notes: list[str]) -> str:
    """Return the manifest as YAML, with the notes as remarks before it and the config file as it was written."""
    remarks = "".join(f"# {note}\n" for note in notes)
    body = yaml.dump(dict(manifest), Dumper=_Dumper, sort_keys=False, width=4096, allow_unicode=True)
    return f"{remarks}{body}"


class _Dumper(yaml.SafeDumper):
    """Write texts of several lines as they are, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST:
        message = f"{name!r} is no name for a service: small letters, digits and dashes, {_LONGEST} at most"
        raise ConfigError(message, param="name")


def _plain_group() -> WorkerGroup:
    return WorkerGroup(
        name="cpu", cpu=2, gpu=0, memory=0, accelerator_type=None, custom={}, minimum=1, initial=1, maximum=1
    )


def _variable(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "value": value}


def _head(cluster: Cluster, variables: list[dict[str, Any]], port: int) -> dict[str, Any]:
    ports = [{"name": name, "containerPort": number} for name, number in {**_PORTS, "serve": port}.items()]
    resources = {"cpu": str(cluster.head_cpu), "memory": f"{cluster.head_memory}Gi"}
    container = {**_container("ray-head", cluster, variables, resources), "ports": ports}
    # Replicas belong on workers: the head has other things to do, and the cluster ends with it.
    return {
        "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},  # noqa: S104
        "template": {"spec": {"containers": [container]}},
    }


def _worker_group(group: WorkerGroup, cluster: Cluster, variables: list[dict[str, Any]], port: int) -> dict[str, Any]:
    minimum = group.minimum if cluster.min_workers is None else cluster.min_workers
    maximum = group.maximum if cluster.max_workers is None else cluster.max_workers
    if maximum < minimum:
        message = f"group {group.name}: at most {maximum} workers is less than at least {minimum}; change --max-workers"
        raise ConfigError(message, param="max_workers")
    gib = max(math.ceil(group.memory / _GIB), 1) if group.memory else cluster.worker_memory * max(1, group.gpu)
    resources = {"cpu": str(group.cpu), "memory": f"{gib}Gi"}
    if group.gpu:
        resources["nvidia.com/gpu"] = str(group.gpu)
    custom = {name: int(amount) for name, amount in group.custom.items()}
    if group.accelerator_type:
        custom[f"accelerator_type:{group.accelerator_type}"] = 1
    spec: dict[str, Any] = {
        "containers": [
            {
                **_container("ray-worker", cluster, variables, resources),
                "ports": [{"name": "serve", "containerPort": port}],
            }
        ]
    }
    if group.gpu:
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {
        "groupName": group.name,
        "replicas": min(max(group.initial, minimum), maximum),
        "minReplicas": minimum,
        "maxReplicas": maximum,
        # KubeRay puts what stands here on a command line: JSON in quotes of its own.
        "rayStartParams": {"resources": json.dumps(json.dumps(custom))} if custom else {},
        "template": {"spec": spec},
    }


def _container(
    name: str, cluster: Cluster, variables: list[dict[str, Any]], resources: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "name": name,
        "image": cluster.image or default_image(),
        "env": [dict(one) for one in variables],
        "resources": {"requests": dict(resources), "limits": dict(resources)},
    }
