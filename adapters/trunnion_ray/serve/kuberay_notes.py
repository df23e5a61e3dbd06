"""Say what a manifest cannot do by itself: images, secrets, files and nodes that must be there."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import ray

from .config_file import ServeFile
from .elsewhere import ElsewhereRegistry
from .planned import planned
from .workers import WorkerGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Choose what no config file says.

    Attributes:
        name: Name of the service.
        namespace: Its namespace; None leaves that to kubectl.
        image: Image of all pods; None for Ray's own of this version.
        min_workers: Least workers of each group; None for what the least replicas need.
        max_workers: Most workers of each group; None for what the most replicas need.
        worker_memory: GiB of a worker whose engines do not say how much they need; for each of its GPUs, if it has any.
        head_cpu: CPUs of the head.
        head_memory: GiB of the head.
    """

    name: str
    namespace: str | None = None
    image: str | None = None
    min_workers: int | None = None
    max_workers: int | None = None
    worker_memory: int = 16
    head_cpu: int = 2
    head_memory: int = 8


def default_image() -> str:
    """Return Ray's own image for this Ray and this Python."""
    return f"rayproject/ray:{ray.__version__}-py{sys.version_info.major}{sys.version_info.minor}"


def secret_variables(file: ServeFile) -> Iterator[str]:
    """Yield the variables that hold keys, other than those the file itself sets."""
    for app, given in zip(file.applications, file.data["applications"], strict=True):
        if app.config is None:
            continue
        environment = (given.get("runtime_env") or {}).get("env_vars") or {}
        for name in (app.config.http.api_keys_env, app.config.http.admin_keys_env):
            if name is not None and name not in environment:
                yield name
        for model in app.config.models:
            known = {*environment, *model.env_vars}
            for key, value in model.config.items():
                named = value.values() if isinstance(value, Mapping) else [value]
                yield from (str(one) for one in named if key.endswith("_env") and one and one not in known)


def left_to_do(file: ServeFile, cluster: Cluster, groups: list[WorkerGroup], secrets: list[str]) -> Iterator[str]:
    """Yield what is left to do."""
    if cluster.image is None:
        yield (
            f"The image {default_image()} lacks Trunnion: build one of it that has run "
            "`pip install 'trunnion[ray]'` (and the engines' extras, such as vllm), and name it with --image."
        )
    if secrets:
        literals = " ".join(f"--from-literal={name}=..." for name in secrets)
        within = f" --namespace {cluster.namespace}" if cluster.namespace else ""
        yield f"Create the secret: kubectl create secret generic {cluster.name}-secrets{within} {literals}"
    for group in groups:
        if group.accelerator_type:
            yield (
                f"Group {group.name} is for {group.accelerator_type} GPUs: add the nodeSelector that your nodes with "
                "them have."
            )
    if silent := [group.name for group in groups if not group.memory]:
        yield (
            f"No engine of {', '.join(silent)} says how much memory it needs: a worker has {cluster.worker_memory} "
            "GiB, or as much for each GPU; --worker-memory changes that."
        )
    for model, device in _left_to_the_machine(file):
        yield f"Where model {model} runs is left to the machine, which means {device} here: set `device` in its config."
    own = [app.name for app in file.applications if app.config is None and app.mirrored is None]
    if own:
        yield f"What {', '.join(own)} needs is not known, as a program of your own: see that the workers have room."
    local = sorted(set(_local_paths(file)))
    if local:
        yield f"These must be on every node, from a volume or in the image: {', '.join(local)}."


def _left_to_the_machine(file: ServeFile) -> Iterator[tuple[str, str]]:
    """Yield the models whose engine would look at the machine for a GPU, and what it finds here."""
    registry = ElsewhereRegistry()
    plan = {(one.application, one.model): one for one in planned(file, registry)}
    for app in file.applications:
        for model in app.config.models if app.config is not None else ():
            plugin = registry.engine(model.engine)
            choice = {"cpu", "gpu"} <= set(plugin.hardware) and "device" in plugin.config.model_fields
            if choice and model.config.get("device", "auto") == "auto":
                asked = plan[app.name, model.name].bundles
                yield model.name, "a GPU" if any(bundle.get("GPU") for bundle in asked) else "the CPU"


def _local_paths(file: ServeFile) -> Iterator[str]:
    for app in file.applications:
        for model in app.config.models if app.config is not None else ():
            for path in (model.model, *model.adapters.values(), *model.lora.folders):
                if path and path.startswith(("/", "./", "../", "~")):
                    yield path
        if app.config is not None:
            http = app.config.http
            yield from (path for path in (http.api_keys_file, http.admin_keys_file) if path)
