"""Build a processor from either kind of configuration, ours or a mirrored one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, overload

from trunnion.errors import ConfigError

from .call_processor import CallProcessor
from .config import ProcessorConfig
from .failures import RowFunction
from .processor import Processor, make_processor
from .ray_calls import HttpRequestProcessorConfig, ServeDeploymentProcessorConfig, call_processor
from .ray_dialect import RayDialect
from .ray_fields import translate
from .ray_llm import vLLMEngineProcessorConfig

_BUILDER: Final = "chat_template_kwargs"


@overload
def build_processor(
    config: ProcessorConfig | vLLMEngineProcessorConfig,
    preprocess: RowFunction | None = ...,
    postprocess: RowFunction | None = ...,
    preprocess_map_kwargs: Mapping[str, Any] | None = ...,
    postprocess_map_kwargs: Mapping[str, Any] | None = ...,
    builder_kwargs: Mapping[str, Any] | None = ...,
) -> Processor: ...


@overload
def build_processor(
    config: HttpRequestProcessorConfig | ServeDeploymentProcessorConfig,
    preprocess: RowFunction | None = ...,
    postprocess: RowFunction | None = ...,
    preprocess_map_kwargs: Mapping[str, Any] | None = ...,
    postprocess_map_kwargs: Mapping[str, Any] | None = ...,
    builder_kwargs: Mapping[str, Any] | None = ...,
) -> CallProcessor: ...


def build_processor(  # noqa: PLR0917 - the order of ray.data.llm
    config: ProcessorConfig | vLLMEngineProcessorConfig | HttpRequestProcessorConfig | ServeDeploymentProcessorConfig,
    preprocess: RowFunction | None = None,
    postprocess: RowFunction | None = None,
    preprocess_map_kwargs: Mapping[str, Any] | None = None,
    postprocess_map_kwargs: Mapping[str, Any] | None = None,
    builder_kwargs: Mapping[str, Any] | None = None,
) -> Processor | CallProcessor:
    """Return a processor: a callable from dataset to dataset that answers every row.

    With :class:`ProcessorConfig` the output columns are those that :data:`trunnion.row_tasks.TASK_COLUMNS` has of its
    task; with a configuration mirrored from ``ray.data.llm`` they are Ray's. Rows that are calls
    (:class:`HttpRequestProcessorConfig`, :class:`ServeDeploymentProcessorConfig`) bring ``payload``, or ``method`` and
    ``request_kwargs``.

    Args:
        config: What answers the rows, and how they are fed to it.
        preprocess: Returns, for a row, the columns to be added to it: ``messages`` (or ``prompt``, or
            ``prompt_token_ids``), ``sampling_params``, ``model`` and the others of :mod:`trunnion.rows`. It runs in
            the engine's actor, one row at a time.
        postprocess: Returns the final row for an answered one: all its columns, those of ``preprocess`` and the
            output columns. A failed row does not pass it.
        preprocess_map_kwargs: Arguments of ``Dataset.map``: ``preprocess`` then runs in tasks of its own.
        postprocess_map_kwargs: The same for ``postprocess``.
        builder_kwargs: ``chat_template_kwargs``, where the configuration sets none.

    Raises:
        ConfigError: A setting is unknown or wrong; ``param`` names it.
        PluginError: The engine cannot be used here.
    """
    given = dict(builder_kwargs or {})
    unknown = sorted(set(given) - {_BUILDER})
    if unknown:
        message = f"builder_kwargs takes {_BUILDER} alone, not {unknown[0]!r}; give the others by name"
        raise ConfigError(message, param=f"builder_kwargs.{unknown[0]}")
    if isinstance(config, HttpRequestProcessorConfig | ServeDeploymentProcessorConfig):
        if given:
            raise ConfigError("builder_kwargs are for engines with a chat template", param="builder_kwargs")
        return call_processor(
            config, preprocess, postprocess, before=preprocess_map_kwargs, after=postprocess_map_kwargs
        )
    dialect = None
    if isinstance(config, vLLMEngineProcessorConfig):
        translation = translate(config)
        dialect = RayDialect(keep_detokenize=translation.detokenize_asked)
        config = ProcessorConfig(**translation.config)
    elif not isinstance(config, ProcessorConfig):
        raise ConfigError(f"config must be a ProcessorConfig or one that mirrors ray.data.llm, not {config!r}")
    if given.get(_BUILDER) and not config.chat_template_kwargs:
        config = config.model_copy(update={_BUILDER: dict(given[_BUILDER])})
    return make_processor(
        config,
        preprocess,
        postprocess,
        before=preprocess_map_kwargs,
        after=postprocess_map_kwargs,
        dialect=dialect,
    )


build_llm_processor = build_processor
"""Ray 2.44's name."""
