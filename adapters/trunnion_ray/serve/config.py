"""Define what is served: one :class:`ModelConfig` per model, in words that know no engine."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from trunnion import MediaPolicy
from trunnion.adapter_setting import LoraSettings
from trunnion.plugin import PluginConfig
from trunnion.spec import PlacementStrategy

Topology = Literal["auto", "direct", "proxy", "gateway"]
"""What stands before the engine's replica: HAProxy, Serve's own proxy, or a gateway; auto takes the best there is."""


class StageConfig(PluginConfig):
    """Configure or insert one stage of the pipeline."""

    stage: str = Field(description="Name of the stage plugin.")
    config: dict[str, Any] = Field(default_factory=dict, description="Its configuration.")
    position: str = Field(default="", description="before:NAME, after:NAME, first, last; empty: where it fits.")


class Autoscaling(PluginConfig):
    """Scale replicas with load. What is left unset keeps Ray Serve's default, the target excepted."""

    min_replicas: int = Field(default=1, ge=0, description="Replicas kept at all times; 0 scales to zero.")
    max_replicas: int = Field(default=1, ge=1, description="Most replicas.")
    initial_replicas: int | None = Field(default=None, ge=0, description="Replicas at first; min_replicas if unset.")
    target_ongoing_requests: float = Field(
        default=32.0,
        gt=0,
        description="Requests in flight per replica to aim at. Serve's own default of 2 starves a batching engine.",
    )
    upscale_delay_s: float | None = Field(default=None, ge=0, description="Seconds of high load before scaling up.")
    downscale_delay_s: float | None = Field(default=None, ge=0, description="Seconds of low load before scaling down.")
    downscale_to_zero_delay_s: float | None = Field(default=None, ge=0, description="The same for the last replica.")
    look_back_period_s: float | None = Field(default=None, gt=0, description="Seconds over which load is averaged.")
    metrics_interval_s: float | None = Field(default=None, gt=0, description="Seconds between reports of a replica.")
    upscaling_factor: float | None = Field(default=None, gt=0, description="Gain that limits scaling up.")
    downscaling_factor: float | None = Field(default=None, gt=0, description="Gain that limits scaling down.")
    aggregation_function: Literal["mean", "max", "min"] | None = Field(
        default=None, description="How load is aggregated over the look-back period."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < self.min_replicas:
            msg = f"max_replicas ({self.max_replicas}) is below min_replicas ({self.min_replicas})"
            raise ValueError(msg)
        return self

    def to_ray(self) -> dict[str, Any]:
        """Return Ray Serve's mapping."""
        return self.model_dump(exclude_none=True)


class RouterConfig(PluginConfig):
    """Choose a router plugin to order a model's replicas, in place of Ray Serve's own."""

    router: str = Field(description="Name of the router plugin, such as power_of_two, least_loaded or affinity.")
    config: dict[str, Any] = Field(default_factory=dict, description="Its configuration.")


class ModelConfig(PluginConfig):
    """Describe one served model: the engine, and how its replicas are deployed."""

    name: str = Field(min_length=1, description="Name that clients send as `model`.")
    engine: str = Field(
        default="auto",
        description="Name of the engine plugin; `trunnion engines` shows them. auto: the one that suits best.",
    )
    model: str | None = Field(default=None, description="Path or name of the model, where the engine needs one.")
    config: dict[str, Any] = Field(default_factory=dict, description="The engine's configuration.")
    adapters: dict[str, str] = Field(
        default_factory=dict, description="LoRA adapters, name to path; clients name them as models."
    )
    lora: LoraSettings = Field(
        default_factory=LoraSettings, description="Adapters that are loaded and unloaded while the engine runs."
    )
    stages: tuple[StageConfig, ...] = Field(default=(), description="Stages to configure or insert.")
    hooks: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Settings of request hooks, by name. Hooks that are installed are in force, named or not.",
    )

    media: MediaPolicy = Field(
        default_factory=MediaPolicy,
        description="Limits of images and other media, and the hosts they may be fetched from.",
    )

    num_replicas: int | None = Field(default=None, ge=1, description="Fixed number of replicas; 1 if unset.")
    autoscaling: Autoscaling | None = Field(default=None, description="Scale with load instead.")
    max_ongoing_requests: int = Field(
        default=10_000,
        ge=1,
        description="Requests one replica takes before others wait outside. High, so that the engine queues: it knows "
        "what fits.",
    )
    max_queued_requests: int = Field(default=-1, ge=-1, description="Requests that may wait outside; -1 for no limit.")
    router: RouterConfig | None = Field(
        default=None, description="Router among the replicas, in the gateway topology; power_of_two if unset."
    )

    ray_actor_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the replica actor; they win over what the engine asks for."
    )
    placement_group_bundles: tuple[dict[str, float], ...] | None = Field(
        default=None, description="Bundles of each replica, in place of those the engine asks for."
    )
    placement_group_strategy: PlacementStrategy | None = Field(
        default=None, description="How the bundles are placed, in place of what the engine asks for."
    )
    env_vars: dict[str, str] = Field(default_factory=dict, description="Environment variables of the replica.")

    health_check_period_s: float = Field(default=5.0, gt=0, description="Seconds between looks at the engine's health.")
    health_check_timeout_s: float = Field(default=30.0, gt=0, description="Seconds after which a look has failed.")
    canary_period_s: float | None = Field(
        default=10.0,
        gt=0,
        description="Seconds between requests for one token, which find out whether the engine still answers; None for "
        "none. Endpoints behind an engine are never asked.",
    )
    canary_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="Seconds after which an engine that neither answered nor made a step is taken for dead, and its "
        "replica replaced.",
    )
    graceful_shutdown_timeout_s: float = Field(
        default=60.0, ge=0, description="Seconds a replica that is stopped has for the requests in flight."
    )
    graceful_shutdown_wait_loop_s: float = Field(
        default=0.5, ge=0, description="Seconds between looks at what is still in flight."
    )
    max_constructor_retry_count: int = Field(
        default=3, ge=1, description="Starts of a replica that may fail before the deployment counts as failed."
    )
    logging: dict[str, Any] = Field(
        default_factory=lambda: {"enable_access_log": False, "log_level": "WARNING"},
        description="Ray Serve's LoggingConfig; its access log costs time on every request, so it is off.",
    )

    @model_validator(mode="after")
    def _one_way_to_scale(self) -> Self:
        if self.num_replicas is not None and self.autoscaling is not None:
            msg = "num_replicas and autoscaling exclude each other; keep one"
            raise ValueError(msg)
        return self


class GatewayConfig(PluginConfig):
    """Set how the gateway before several models is deployed."""

    num_replicas: int = Field(default=1, ge=1, description="Gateway replicas.")
    ray_actor_options: dict[str, Any] = Field(
        default_factory=lambda: {"num_cpus": 0}, description="Options of the gateway's actors."
    )
    max_ongoing_requests: int = Field(default=10_000, ge=1, description="Requests in flight per gateway replica.")
    retries: int = Field(
        default=2,
        ge=0,
        description="Times a request is sent to another replica where its replica died before the first token.",
    )
    data_channel: bool = Field(
        default=True,
        description="Whether replicas write streams over a connection of their own to the gateway, on a free port of "
        "its node, with a secret. Where it is off, they cannot connect, or Ray uses TLS, Serve's handles carry each "
        "event, at several times the cost.",
    )
