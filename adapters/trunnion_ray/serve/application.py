"""Build Ray Serve applications of models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import Field
from ray import serve
from ray.serve import Application

from trunnion.adapter_setting import lazily
from trunnion.errors import ConfigError
from trunnion.plugin import PluginConfig
from trunnion.registry import validate_config
from trunnion.spec import PipelineSpec
from trunnion_http import HTTPSettings

from . import _ray_private
from .config import GatewayConfig, ModelConfig, RouterConfig, Topology
from .gateway import Gateway
from .options import adapter_names, deployment_name, deployment_options, pipeline_spec, placement
from .order_desk import OrderDesk
from .remote_model import ModelCard
from .replica import ModelReplica, ReplicaSpec
from .room import check_room
from .routing import request_router_config

_ROUTER: Final = RouterConfig(router="power_of_two")
"""The router among the replicas of a model behind a gateway. Serve's own asks replicas for their queues, and all
requests of a burst get the same answer; ours counts what it has sent."""
_LAST_WORDS: Final = 5.0
"""Seconds that who stands before models has longer than they: Serve needs a moment to end a replica by force."""


class AppConfig(PluginConfig):
    """Describe a whole application: what ``args`` of a Serve config file hold."""

    models: tuple[ModelConfig, ...] = Field(min_length=1, description="The models to serve.")
    topology: Topology = Field(default="auto", description="auto: gateway for several models, else without.")
    http: HTTPSettings = Field(default_factory=HTTPSettings, description="Limits and keys of the HTTP surface.")
    gateway: GatewayConfig = Field(default_factory=GatewayConfig, description="How the gateway is deployed.")


def build_application(config: AppConfig) -> Application:
    """Build the application.

    Raises:
        ConfigError: The topology does not fit the models, or an engine refuses its configuration.
        PluginError: An engine cannot be used here.
    """
    check_form(config)
    topology = config.topology
    specs = [pipeline_spec(model) for model in config.models]
    pairs = list(zip(config.models, specs, strict=True))
    check_room({model.name: placement(model, spec) for model, spec in pairs})
    if behind_gateway(config):
        return gateway_application(
            [(card_of(model, spec), model_application(model, config.http, spec=spec)) for model, spec in pairs],
            config.http,
            config.gateway,
        )
    return model_application(config.models[0], config.http, ingress=True, topology=topology, spec=specs[0])


def behind_gateway(config: AppConfig) -> bool:
    """Tell whether a gateway stands before the models."""
    return config.topology == "gateway" or len(config.models) > 1


def check_form(config: AppConfig) -> None:
    """Check what can be told of an application without its engines and its cluster.

    Raises:
        ConfigError: Two models have one name, the topology does not fit the models, a router is named that is never
            asked, or a folder is relative.
    """
    unique_names(config.models)
    _check_folder(config.http)
    if config.topology in ("direct", "proxy") and len(config.models) > 1:
        count = len(config.models)
        msg = f"the {config.topology} topology serves one model per application, not {count}; use 'gateway'"
        raise ConfigError(msg, param="topology")
    if not behind_gateway(config) and config.models[0].router is not None:
        msg = "router: replicas are chosen by HAProxy or Serve's proxy in this topology; use topology='gateway'"
        raise ConfigError(msg, param="router")


def unique_names(models: Sequence[ModelConfig]) -> list[str]:
    """Return the names of models. Raises :class:`ConfigError` where two have the same."""
    names = [model.name for model in models]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"two models are named {twice!r}; give one of them another name", param="models")
    return names


def card_of(config: ModelConfig, spec: PipelineSpec) -> ModelCard:
    """Return what the gateway must know of a model; ``spec`` is its :func:`pipeline_spec`."""
    lazy = lazily(config.adapters, config.lora)[1]
    adapters = (*adapter_names(spec), *lazy)
    sleeps = config.autoscaling is not None and config.autoscaling.min_replicas == 0
    return ModelCard(name=config.name, adapters=adapters, changing=config.lora.in_use, sleeps=sleeps)


def model_application(
    config: ModelConfig,
    http: HTTPSettings | None = None,
    *,
    ingress: bool = False,
    topology: Topology = "auto",
    options: Mapping[str, Any] | None = None,
    spec: PipelineSpec | None = None,
) -> Application:
    """Bind one model's deployment.

    Args:
        config: The model.
        http: Limits and keys of the HTTP surface.
        ingress: Whether the replicas answer HTTP themselves; otherwise they are reached by handle.
        topology: What was wished for, so that the replica can say if it came otherwise.
        options: Options of the deployment that win over the configuration's.
        spec: Its :func:`pipeline_spec`, where that was made already.
    """
    spec = spec or pipeline_spec(config)
    merged = {"name": deployment_name(config.name), **deployment_options(config, spec), **(options or {})}
    if "num_replicas" in (options or {}) and "autoscaling_config" not in (options or {}):
        merged.pop("autoscaling_config", None)
    if "autoscaling_config" in (options or {}) and "num_replicas" not in (options or {}):
        merged.pop("num_replicas", None)
    router = config.router
    if router is None and not ingress and (config.autoscaling is not None or (config.num_replicas or 1) > 1):
        router = _ROUTER
    if router is not None:
        merged["request_router_config"] = request_router_config(router)
    replica = ReplicaSpec(
        name=config.name,
        pipeline=spec,
        lora=config.lora,
        adapters=lazily(config.adapters, config.lora)[1],
        http=_own_http(http, ingress=ingress),
        canary_period=config.canary_period_s,
        canary_timeout=config.canary_timeout_s,
        topology=topology if ingress else "gateway",
    )
    cls: Any = serve.ingress()(ModelReplica) if ingress else ModelReplica
    deployment = serve.deployment(cls).options(**merged)
    return deployment.bind(replica, _desk(config.name)) if _takes_orders(config, http) else deployment.bind(replica)


def _check_folder(http: HTTPSettings) -> None:
    """Raise :class:`ConfigError` if files and batches would lie in whatever folder each replica works in."""
    if http.batches is not None and not Path(http.batches.folder).expanduser().is_absolute():
        msg = (
            f"http.batches.folder: {http.batches.folder!r} is relative, and replicas have working directories of their "
            "own; give an absolute path on a file system that they share"
        )
        raise ConfigError(msg, param="http.batches.folder")


def _own_http(http: HTTPSettings | None, *, ingress: bool) -> HTTPSettings:
    """Return a replica's own settings: behind a gateway it keeps no files and batches, for the gateway does."""
    http = http or HTTPSettings()
    return http if ingress else http.model_copy(update={"batches": None})


def _takes_orders(config: ModelConfig, http: HTTPSettings | None) -> bool:
    """Tell whether replicas must agree: adapters come and go, or administrators may change the engines."""
    allowed = http is not None and (http.admin_keys_env is not None or http.admin_keys_file is not None)
    return config.lora.in_use or allowed


def _desk(name: str) -> Application:
    return (
        serve.deployment(OrderDesk)
        .options(
            name=f"desk:{deployment_name(name)}",
            num_replicas=1,
            ray_actor_options={"num_cpus": 0},
            max_ongoing_requests=10_000,
            logging_config={"enable_access_log": False, "log_level": "WARNING"},
        )
        .bind()
    )


def gateway_application(
    models: Sequence[tuple[ModelCard, Application]],
    http: HTTPSettings | None = None,
    gateway: GatewayConfig | None = None,
    options: Mapping[str, Any] | None = None,
) -> Application:
    """Bind a gateway in front of model deployments."""
    gateway = gateway or GatewayConfig()
    merged: dict[str, Any] = {
        "name": "gateway",
        "num_replicas": gateway.num_replicas,
        "ray_actor_options": dict(gateway.ray_actor_options),
        "max_ongoing_requests": gateway.max_ongoing_requests,
        "graceful_shutdown_timeout_s": outliving([app for _, app in models]),
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
        **(options or {}),
    }
    if "autoscaling_config" in merged and "num_replicas" not in (options or {}):
        merged.pop("num_replicas")
    cls: Any = serve.ingress()(Gateway)
    cards, apps = [card for card, _ in models], [app for _, app in models]
    bound = {"retries": gateway.retries, "data_channel": gateway.data_channel}
    return serve.deployment(cls).options(**merged).bind(cards, apps, http or HTTPSettings(), **bound)


def outliving(apps: Sequence[Application]) -> float:
    """Return the seconds that who stands before models has to stop: streams that outlast a model's are told of it."""
    return max((_ray_private.shutdown_timeout(app) for app in apps), default=0.0) + _LAST_WORDS


def read_models(models: Sequence[ModelConfig | Mapping[str, Any]]) -> tuple[ModelConfig, ...]:
    """Validate model configurations given as values or as mappings. Raises :class:`ConfigError` naming the key."""
    read: list[ModelConfig] = []
    for index, model in enumerate(models):
        valid = model
        if not isinstance(valid, ModelConfig):
            valid = validate_config(ModelConfig, dict(model), where=f"models[{index}]")  # type: ignore[assignment]
        assert isinstance(valid, ModelConfig)
        read.append(valid)
    return tuple(read)
