"""Mirror the configurations of ``ray.data.llm`` whose rows are calls: every field has an effect, or is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Self

import pyarrow as pa
from pydantic import ConfigDict, Field, field_validator, model_validator

from trunnion import Bundle, Resources
from trunnion.errors import ConfigError, UnsupportedFeature
from trunnion.settings import Settings

from . import http_rows, serve_rows
from .call_processor import CallProcessor
from .call_worker import CallJob
from .failures import RowFunction
from .placement import placement

_CPU: Final = 0.25
"""What a replica takes that waits for others to compute."""
_ANY_NODE: Final = "CPU"


class HttpRequestStageConfig(Settings):
    """Configure the actors that send requests; what is set here wins over the processor's own fields."""

    enabled: bool = Field(default=True, description="False is refused: there is no other stage.")
    batch_size: int | None = Field(default=None, ge=1, description="Rows per block.")
    concurrency: int | tuple[int, int] | None = Field(default=None, description="Replicas.")
    runtime_env: dict[str, Any] | None = Field(default=None, description="Ray runtime environment of the replicas.")
    num_cpus: float | None = Field(default=None, ge=0, description="CPUs of a replica; a quarter if None.")
    memory: float | None = Field(default=None, gt=0, description="Memory of a replica in bytes.")


class _CallConfig(Settings):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    accelerator_type: str | None = Field(default=None, description='Accelerator of the nodes; None or "CPU" for any.')
    concurrency: int | tuple[int, int] = Field(
        default=1, description="Replicas: a fixed number, or the smallest and largest number to scale between."
    )

    @field_validator("concurrency")
    @classmethod
    def _replicas(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        low, high = (value, value) if isinstance(value, int) else value
        if not 1 <= low <= high:
            msg = f"concurrency must be a positive number or (min, max) with 1 <= min <= max, not {value!r}"
            raise ValueError(msg)
        return value


class HttpRequestProcessorConfig(_CallConfig):
    """Post the column ``payload`` of each row, and put the JSON that comes back into ``http_response``.

    Runs on the engine for OpenAI-compatible endpoints: one connection pool per replica, hundreds of requests in
    flight, Retry-After honoured. An error status is never an answer: it is the row's error.
    """

    batch_size: int = Field(default=64, ge=1, description="Rows per block.")
    url: str = Field(description="Where to.")
    headers: dict[str, Any] | None = Field(default=None, description="Request headers; they are not logged.")
    qps: float | None = Field(default=None, gt=0, description="Requests started per second at most, in each replica.")
    max_retries: int = Field(default=0, ge=0, description="Repetitions of a request that failed in a way that passes.")
    base_retry_wait_time_in_s: float = Field(
        default=1, ge=0, description="Wait before the first repetition; doubled for each further one, less a jitter."
    )
    session_factory: Any = Field(default=None, exclude=True, description="Refused: there is no aiohttp session.")
    http_request_stage: Any = Field(default=True, description="bool, dict or HttpRequestStageConfig.")
    should_continue_on_error: bool = Field(
        default=True, description="Keep failed rows, with the column __inference_error__; False ends the job instead."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.session_factory is not None:
            raise UnsupportedFeature(
                "session_factory cannot be honoured: requests go through the openai engine's own connection pool; set "
                "headers, or HTTP_PROXY and SSL_CERT_FILE in runtime_env",
                param="session_factory",
            )
        if not self.stage.enabled:
            raise UnsupportedFeature(
                "http_request_stage cannot be switched off: it is all there is", param="http_request_stage"
            )
        self.caller(nulls=False)  # what the engine refuses is refused here
        return self

    @property
    def stage(self) -> HttpRequestStageConfig:
        """Return the stage's configuration. Raises :class:`ConfigError` for an object of another kind."""
        given = self.http_request_stage
        if isinstance(given, HttpRequestStageConfig):
            return given
        if isinstance(given, bool):
            return HttpRequestStageConfig(enabled=given)
        if isinstance(given, dict):
            try:
                return HttpRequestStageConfig(**given)
            except ValueError as error:
                raise ConfigError(f"http_request_stage: {error}", param="http_request_stage") from error
        raise ConfigError(
            f"http_request_stage must be a bool, a dict or an HttpRequestStageConfig, not {given!r}",
            param="http_request_stage",
        )

    def caller(self, *, nulls: bool) -> http_rows.HttpCaller:
        """Return what answers the rows."""
        return http_rows.HttpCaller(
            self.url,
            headers={name: str(value) for name, value in (self.headers or {}).items()},
            qps=self.qps,
            settings={"max_retries": self.max_retries, "retry_backoff": self.base_retry_wait_time_in_s},
            nulls=nulls,
        )


class ServeDeploymentProcessorConfig(_CallConfig):
    """Call a method of a running Serve deployment for each row.

    Rows bring ``method`` and ``request_kwargs``, and ``dtype`` where the method takes an object of a class. The
    answer's fields become columns, beside ``request_id``, ``batch_uuid`` and ``time_taken``.
    """

    batch_size: int = Field(default=32, ge=1, description="Rows per block.")
    deployment_name: str = Field(description="Name of the deployment.")
    app_name: str = Field(default="default", description="Name of its application.")
    dtype_mapping: dict[str, type[Any]] | None = Field(
        default=None, description="Classes of the requests, by the name that the column dtype gives."
    )
    should_continue_on_error: bool = Field(
        default=False, description="Keep failed rows, with the column __inference_error__, instead of raising."
    )
    request_timeout_s: float | None = Field(default=None, gt=0, description="Seconds that one call may take.")


def call_processor(
    config: HttpRequestProcessorConfig | ServeDeploymentProcessorConfig,
    preprocess: RowFunction | None,
    postprocess: RowFunction | None,
    *,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
) -> CallProcessor:
    """Return the processor of a mirrored configuration."""
    for name, function in (("preprocess", preprocess), ("postprocess", postprocess)):
        if function is not None and not callable(function):
            raise ConfigError(f"{name} must be a function of a row, not {function!r}", param=name)
    on_error: Any = "row" if config.should_continue_on_error else "raise"
    if isinstance(config, HttpRequestProcessorConfig):
        stage = config.stage
        # A payload that preprocess made beside the calls holds the nulls that it means.
        job = CallJob(
            caller=config.caller(nulls=preprocess is not None and not before),
            answered=http_rows.answered,
            failed={http_rows.RESPONSE: None},
            types={},
            preprocess=preprocess,
            postprocess=postprocess,
            on_error=on_error,
        )
    else:
        stage = HttpRequestStageConfig()
        job = CallJob(
            caller=serve_rows.HandleCaller(
                config.deployment_name,
                app=config.app_name,
                dtypes=config.dtype_mapping or {},
                timeout=config.request_timeout_s,
            ),
            answered=serve_rows.answered,
            failed={},
            consumed=(serve_rows.REQUEST,),
            types={"request_id": pa.string(), "batch_uuid": pa.string(), "time_taken": pa.float64()},
            preprocess=preprocess,
            postprocess=postprocess,
            on_error=on_error,
        )
    concurrency = stage.concurrency or config.concurrency
    return CallProcessor(
        job=job,
        batch_size=stage.batch_size or config.batch_size,
        replicas=(concurrency, concurrency) if isinstance(concurrency, int) else concurrency,
        placed=_placed(stage, config.accelerator_type),
        before=dict(before or {}),
        after=dict(after or {}),
    )


def _placed(stage: HttpRequestStageConfig, accelerator: str | None) -> dict[str, Any]:
    memory = None if stage.memory is None else int(stage.memory)
    bundle = Bundle(cpu=_CPU if stage.num_cpus is None else stage.num_cpus, memory=memory)
    if accelerator is not None and accelerator.upper() != _ANY_NODE:
        bundle = replace(bundle, accelerator_type=accelerator)
    placed = placement(Resources(bundles=(bundle,)))
    return placed if stage.runtime_env is None else {**placed, "runtime_env": stage.runtime_env}
