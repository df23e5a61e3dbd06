"""Build an application of whatever describes models: our configurations, or those of Ray's LLM modules."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from ray.serve import Application

from trunnion.errors import ConfigError
from trunnion.registry import validate_config
from trunnion_http import HTTPSettings

from .application import AppConfig, build_application, read_models
from .config import GatewayConfig, ModelConfig, Topology
from .mirror.builders import build_from_serving_args
from .mirror.configs import LLMConfig, LLMServingArgs


def build_openai_app(
    models: Any,
    *,
    topology: Topology | None = None,
    http: HTTPSettings | None = None,
    gateway: GatewayConfig | None = None,
) -> Application:
    """Build a Ray Serve application that answers OpenAI's API.

    Args:
        models: What to serve: a sequence of :class:`ModelConfig` (or mappings of its fields), an :class:`AppConfig`
            (or a mapping of its fields, with the key ``models``), or the ``LLMServingArgs`` of Ray's modules (or a
            mapping with the key ``llm_configs``, or a sequence of ``LLMConfig``).
        topology: "auto" serves one model from the engine's own replica and several through a gateway. What stands
            before the replica, HAProxy (*direct*) or Serve's own proxy, is decided where Serve starts: see
            :func:`trunnion_ray.serve.run`.
        http: Limits and keys of the HTTP surface.
        gateway: How the gateway before several models is deployed.

    Raises:
        ConfigError: A configuration is wrong; ``param`` names the key.
        PluginError: An engine cannot be used here.
    """
    if (mirrored := _serving_args(models)) is not None:
        if topology not in (None, "auto") or http is not None or gateway is not None:
            msg = "topology, http and gateway go with ModelConfig; an LLMConfig is served as Ray's modules would"
            raise ConfigError(msg, param="topology")
        return build_from_serving_args(mirrored)
    given = {"topology": topology, "http": http, "gateway": gateway}
    further: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if isinstance(models, AppConfig):
        config = models.model_copy(update=further)
    elif isinstance(models, ModelConfig):
        config = AppConfig(models=(models,), **further)
    elif isinstance(models, Mapping):
        data = {**models, **further}
        data["models"] = read_models(data.get("models") or ())
        config = validate_config(AppConfig, data, where="the application")  # type: ignore[assignment]
    elif isinstance(models, Sequence) and not isinstance(models, str):
        data = {"models": read_models(models), **further}
        config = validate_config(AppConfig, data, where="the application")  # type: ignore[assignment]
    else:
        msg = f"build_openai_app takes model configurations, not {type(models).__name__}"
        raise ConfigError(msg, param="models")
    return build_application(config)


def _serving_args(models: Any) -> LLMServingArgs | None:
    """Return the mirrored arguments if that is what was given."""
    if isinstance(models, LLMServingArgs):
        return models
    if isinstance(models, LLMConfig):
        return LLMServingArgs(llm_configs=[models])
    if isinstance(models, Mapping) and "llm_configs" in models:
        return LLMServingArgs.model_validate(dict(models))
    if isinstance(models, (list, tuple)) and models and isinstance(models[0], LLMConfig):
        return LLMServingArgs(llm_configs=list(models))
    return None


# Serve's config files call a builder that takes exactly one parameter; the keywords are for Python alone.
build_openai_app.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter("models", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
)
