"""Build a processor from either kind of configuration, ours or a mirrored one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from trunnion.errors import ConfigError

from .config import ProcessorConfig
from .failures import RowFunction
from .processor import Processor, make_processor
from .ray_dialect import RayDialect
from .ray_fields import translate
from .ray_llm import vLLMEngineProcessorConfig

_BUILDER: Final = "chat_template_kwargs"


def build_processor(  # noqa: PLR0917 - the order of ray.data.llm
    config: ProcessorConfig | vLLMEngineProcessorConfig,
    preprocess: RowFunction | None = None,
    postprocess: RowFunction | None = None,
    preprocess_map_kwargs: Mapping[str, Any] | None = None,
    postprocess_map_kwargs: Mapping[str, Any] | None = None,
    builder_kwargs: Mapping[str, Any] | None = None,
) -> Processor:
    """Return a processor: a callable from dataset to dataset that answers every row.

    With :class:`ProcessorConfig` the output columns are :data:`trunnion.rows.OUTPUT_COLUMNS`; with a configuration
    mirrored from ``ray.data.llm`` they are Ray's.

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
    dialect = None
    if isinstance(config, vLLMEngineProcessorConfig):
        translation = translate(config)
        dialect = RayDialect(keep_detokenize=translation.detokenize_asked)
        config = ProcessorConfig(**translation.config)
    elif not isinstance(config, ProcessorConfig):
        raise ConfigError(f"config must be a ProcessorConfig or a vLLMEngineProcessorConfig, not {config!r}")
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
