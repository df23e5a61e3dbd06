"""Define the settings of a batch job, the same for every engine."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from trunnion import Bundle, MediaPolicy, PipelineSpec, StageSpec, get_registry
from trunnion.pooling import Task, check_task, needs_of
from trunnion.settings import Settings
from trunnion.spec import PlacementStrategy
from trunnion_batch.answering import Share
from trunnion_batch.recovery import Recovery
from trunnion_ray.machine import cluster

logger = logging.getLogger("trunnion.data")

BATCH_SIZE: Final = 128
_ROWS: Final = 2048
_CALLS: Final = (4, 64)


class ModelConfig(Settings):
    """Say which engine answers the rows of one further model of a job, in replicas of its own."""

    engine: str = Field(default="auto", description="Name of the engine plugin. auto: the one that suits best.")
    model: str | None = Field(default=None, description="Path or name of the model.")
    config: dict[str, Any] = Field(default_factory=dict, description="The engine's own settings.")
    stages: tuple[StageSpec, ...] = Field(default=(), description="Stages that are configured or inserted.")
    sampling: dict[str, Any] = Field(default_factory=dict, description="Sampling parameters where a row sets none.")
    concurrency: int | tuple[int, int] = Field(default=1, description="Replicas, or the least and the most of them.")
    max_pending_requests: int | None = Field(default=None, ge=1, description="Requests handed to the engine at once.")
    bundles: tuple[Bundle, ...] | None = Field(default=None, description="What one replica takes.")
    strategy: PlacementStrategy | None = Field(default=None, description="How several bundles are placed.")
    accelerator_type: str | None = Field(default=None, description="Accelerator the nodes must have.")
    runtime_env: dict[str, Any] | None = Field(default=None, description="Ray runtime environment of the replicas.")
    adapter_root: str | None = Field(default=None, description="Folder with a LoRA adapter in each subfolder.")
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict, description="Variables of the chat template.")


class ProcessorConfig(Settings):
    """Say which engine answers the rows, how many replicas of it there are, and how rows are fed to them."""

    task: Task = Field(
        default="generate",
        description="generate: text; embed: a vector for `prompt`; classify: probabilities of labels for `prompt`; "
        "score: how well each of `texts` answers `query`.",
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="With embed: length of the vectors, where the model can cut them."
    )
    engine: str = Field(
        default="auto",
        description="Name of the engine plugin; `trunnion engines` shows them. auto: the one that suits best.",
    )
    model: str | None = Field(default=None, description="Path or name of the model.")
    config: dict[str, Any] = Field(
        default_factory=dict, description="The engine's own settings; `trunnion plugins schema NAME` lists them."
    )
    models: dict[str, ModelConfig] = Field(
        default_factory=dict,
        description="Further models, by the names under which rows ask for them in the column `model`: `judge`, or "
        "`judge:strict` for its LoRA adapter `strict`. All other rows are for the model named above.",
    )
    stages: tuple[StageSpec, ...] = Field(
        default=(), description="Stages that are configured or inserted; the others are planned by themselves."
    )
    hooks: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Settings of request hooks, by name. Hooks that are installed are in force, named or not.",
    )
    media: MediaPolicy = Field(
        default_factory=MediaPolicy,
        description="Limits of images and other media, and the hosts they may be fetched from.",
    )
    batch_size: int = Field(
        default=BATCH_SIZE,
        ge=1,
        description="Rows per block that is handed to a replica in one call. Small blocks are joined and large ones "
        "split first. A failed call repeats its block, and a block's rows come out together.",
    )
    max_concurrent_batches: int | None = Field(
        default=None,
        ge=1,
        description="Blocks in one replica side by side. Times batch_size these are the rows it holds: about eight "
        f"times what the engine runs at once keeps it full when lengths differ. None: as many as make {_ROWS} rows.",
    )
    max_pending_requests: int | None = Field(
        default=None, ge=1, description="Requests handed to the engine at once; None hands over every row it holds."
    )
    prefix_order: bool = Field(
        default=False,
        description="Give the engine those rows close together that share the beginning of their prompts, of the rows "
        "that a replica holds; rows keep their places in the output.",
    )
    max_tasks_in_flight_per_actor: int | None = Field(
        default=None,
        ge=1,
        description="Blocks assigned to a replica, waiting ones included; half as many again if None.",
    )
    concurrency: int | tuple[int, int] = Field(
        default=1, description="Replicas: a fixed number, or the smallest and largest number to scale between."
    )
    bundles: tuple[Bundle, ...] | None = Field(
        default=None, description="What one replica takes, instead of what the engine's plugin says."
    )
    strategy: PlacementStrategy | None = Field(
        default=None, description="How several bundles are placed, instead of what the engine's plugin says."
    )
    accelerator_type: str | None = Field(
        default=None, description='Accelerator the nodes must have, such as "A10G"; None or "CPU" for any node.'
    )
    runtime_env: dict[str, Any] | None = Field(default=None, description="Ray runtime environment of the replicas.")
    sampling: dict[str, Any] = Field(
        default_factory=dict, description="Sampling parameters where a row sets none; a row's own keys win one by one."
    )
    adapter: str | None = Field(default=None, description="LoRA adapter of rows that name no model.")
    adapter_root: str | None = Field(
        default=None,
        description="Folder with a LoRA adapter in each subfolder, loaded when a row first names it. The empty string "
        "takes what the row says as path or Hub name. None: only adapters declared in the engine's settings.",
    )
    base_models: tuple[str, ...] = Field(
        default=(), description="Names in the model column that mean the base model, beside `model` itself."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Other names for the input columns, such as {'prompt': 'text'}; an empty name switches one off.",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="Variables of the chat template; a row's own win."
    )
    on_error: Literal["row", "raise"] = Field(
        default="row",
        description="row: a row that fails keeps its columns and gets an `error`. raise: the first error ends the job.",
    )
    skip_failed: bool = Field(
        default=True,
        description="A row that brings the `error` of a processor before passes with it, unasked, and counts as "
        "failed. False: it is asked like any other, as dead letters are that run again.",
    )
    recovery: Recovery = Field(
        default_factory=Recovery, description="What happens when something fails that is not a row's own fault."
    )
    journal: str | None = Field(
        default=None,
        description="Folder, a path on the driver's node or a URI of any file system that fsspec knows, for finished "
        "answers: a job that was killed goes on from there.",
    )
    cache: str | None = Field(
        default=None, description="Folder of answers that any later job may use, and that is never used up."
    )
    share: Share = Field(
        default="deterministic",
        description="Rows that the cache answers: those greedy or with a seed, which would come out the same, or all.",
    )
    max_error_rate: float | None = Field(
        default=None, ge=0, le=1, description="Share of failed rows, of 100 or more, at which the job is given up."
    )
    split_blocks: bool = Field(
        default=True, description="Cut the dataset into blocks of batch_size rows first; off if its blocks fit already."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.replicas
        if not 1 <= low <= high:
            msg = f"concurrency must be a positive number or (min, max) with 1 <= min <= max, not {self.concurrency!r}"
            raise ValueError(msg)
        flight = self.max_tasks_in_flight_per_actor
        if flight is not None and flight < self.calls:
            logger.warning(
                "max_tasks_in_flight_per_actor (%d) leaves some of the %d calls per replica unused", flight, self.calls
            )
        if self.bundles is not None and not self.bundles:
            msg = "bundles is empty; give at least one, or None for what the engine's plugin says"
            raise ValueError(msg)
        return self

    @property
    def replicas(self) -> tuple[int, int]:
        """Return the smallest and the largest number of replicas."""
        return (self.concurrency, self.concurrency) if isinstance(self.concurrency, int) else self.concurrency

    @property
    def calls(self) -> int:
        """Return how many blocks one replica works on side by side."""
        if self.max_concurrent_batches is not None:
            return self.max_concurrent_batches
        return min(max(math.ceil(_ROWS / self.batch_size), _CALLS[0]), _CALLS[1])

    @property
    def in_flight(self) -> int:
        """Return how many blocks are assigned to a replica: some wait, so that a call that ends has a successor."""
        return self.max_tasks_in_flight_per_actor or self.calls + max(2, math.ceil(self.calls / 2))

    def pipeline_spec(self) -> PipelineSpec:
        """Return what crosses to the replicas, validated by the engine's plugin.

        Raises:
            ConfigError: A setting of the engine or of hooks is unknown or wrong.
            UnsupportedFeature: The engine has no such task.
            PluginError: The engine, or hooks that are named, cannot be used here.
        """
        registry = get_registry()
        needs = needs_of(self.task)
        spec = registry.engine_spec(self.engine, self.model, self.config, batch=True, machine=cluster(), needs=needs)
        check_task(self.task, spec.engine, registry.engine(spec.engine).capabilities)
        spec = registry.divided(spec, self.replicas[1])
        registry.check_hooks(self.hooks)
        return PipelineSpec(engine=spec, stages=self.stages, policy=registry.policy, hooks=self.hooks, media=self.media)

    def further(self) -> list[ProcessorConfig]:
        """Return the configuration of each further model, with what holds for the whole job."""
        return [
            self.model_copy(update={"models": {}, "adapter": None, "base_models": (), **one.__dict__})
            for one in self.models.values()
        ]

    def row_options(self) -> Mapping[str, Any]:
        """Return the keyword arguments of :class:`trunnion.rows.RowOptions`, as plain values."""
        names = (self.model, *self.base_models)
        return {
            "sampling": self.sampling,
            "adapter": self.adapter,
            "base_models": frozenset(name for name in names if name),
            "chat_template_kwargs": self.chat_template_kwargs or None,
            "task": self.task,
            "dimensions": self.dimensions,
        }
