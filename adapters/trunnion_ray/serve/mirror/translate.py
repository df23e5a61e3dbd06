"""Translate a mirrored configuration into the engine-neutral one, and into options of a Serve deployment."""

from __future__ import annotations

import difflib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ray.serve.config import AutoscalingConfig

from trunnion.errors import ConfigError
from trunnion.plugin import EnginePlugin
from trunnion.registry import get_registry

from .. import _ray_private  # noqa: TID252
from ..config import ModelConfig  # noqa: TID252
from ..options import deployment_name, deployment_options, pipeline_spec  # noqa: TID252
from .rules import DEPLOYMENT_REFUSED, EXPERIMENTAL, Refused

if TYPE_CHECKING:
    from .configs import LLMConfig

_PLACEMENT: Final = frozenset({"bundle_per_worker", "bundles", "strategy"})
_RANKS: Final = ("tensor_parallel_size", "pipeline_parallel_size")
_CPU: Final = "CPU"


def check(config: LLMConfig) -> None:
    """Refuse what cannot be translated, by name. Raises :class:`ConfigError` or a :class:`PluginError`."""
    _engine(config)
    for key in config.experimental_configs:
        rule = EXPERIMENTAL.get(key)
        if rule is None or isinstance(rule, Refused):
            reason = "unknown" if rule is None else rule.reason
            raise ConfigError(f"experimental_configs[{key!r}] is not supported: {reason}", param="experimental_configs")
    if config.log_engine_metrics:
        msg = "log_engine_metrics=True: an engine's metrics are not exported through Ray; leave it out"
        raise ConfigError(msg, param="log_engine_metrics")
    if config.accelerator_type is not None and config.accelerator_type.upper().startswith("TPU"):
        raise ConfigError("accelerator_type: no engine plugin runs on TPUs", param="accelerator_type")
    kind = config.accelerator_config.kind if config.accelerator_config is not None else None
    on_gpu = config.accelerator_type not in (None, _CPU)
    if (kind == "cpu" and on_gpu) or (kind == "gpu" and config.accelerator_type == _CPU):
        msg = f"accelerator_type {config.accelerator_type!r} and accelerator_config kind {kind!r} contradict each other"
        raise ConfigError(msg, param="accelerator_config")
    check_options(config.deployment_config, where="deployment_config")
    _check_placement(config.placement_group_config)


def check_options(options: dict[str, Any], *, where: str) -> None:
    """Refuse options that a Serve deployment does not know, or that make no sense here."""
    known = _ray_private.deployment_option_names()
    for key in options:
        if key in DEPLOYMENT_REFUSED:
            raise ConfigError(f"{where}[{key!r}] is not supported: {DEPLOYMENT_REFUSED[key]}", param=where)
        if key not in known:
            raise ConfigError(f"{where} has no option {key!r}; {_hint(key, known)}", param=where)
    autoscaling = options.get("autoscaling_config")
    if isinstance(autoscaling, dict):
        for key in autoscaling:
            if key not in AutoscalingConfig.model_fields:  # Ray itself would ignore it in silence
                hint = _hint(key, AutoscalingConfig.model_fields)
                raise ConfigError(f"{where}['autoscaling_config'] has no key {key!r}; {hint}", param=where)


def _hint(key: str, known: Any) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"


def _check_placement(config: dict[str, Any] | None) -> None:
    if config is None:
        return
    unknown = sorted(set(config) - _PLACEMENT)
    if unknown:
        msg = f"placement_group_config has no key {unknown[0]!r}; known: {', '.join(sorted(_PLACEMENT))}"
        raise ConfigError(msg, param="placement_group_config")
    if ("bundles" in config) == ("bundle_per_worker" in config):
        msg = "placement_group_config takes either 'bundles' or 'bundle_per_worker'"
        raise ConfigError(msg, param="placement_group_config")


def _engine(config: LLMConfig) -> EnginePlugin:
    """Return the engine plugin of a name such as "vLLM". Raises the :class:`PluginError` of its state."""
    return get_registry().engine(config.llm_engine.lower())


def to_model_config(config: LLMConfig) -> ModelConfig:
    """Return the engine-neutral configuration.

    Raises:
        ConfigError: The engine refuses a setting, or the folder of adapters is not there.
    """
    plugin = _engine(config)
    loading = config.model_loading_config
    source = loading.model_source if isinstance(loading.model_source, str) else None
    actor: dict[str, Any] = {}
    if config.runtime_env:
        actor["runtime_env"] = dict(config.runtime_env)
    if config.accelerator_type not in (None, _CPU):
        actor["accelerator_type"] = "A10G" if config.accelerator_type == "A10" else config.accelerator_type
    model = ModelConfig(
        name=loading.model_id,
        engine=plugin.name,
        model=source or (loading.model_id if plugin.needs_model else None),
        config=_engine_config(config, plugin),
        adapters=_adapters(config),
        ray_actor_options=actor,
    )
    if config.placement_group_config is None:
        return model
    bundles = _bundles(config)
    resources = get_registry().resources(pipeline_spec(model).engine)
    if resources.workers == "engine":
        # The engine's ranks are its own processes on one node: one bundle holds them all.
        names = {name for bundle in bundles for name in bundle}
        bundles = ({name: math.fsum(bundle.get(name, 0.0) for bundle in bundles) for name in names},)
    strategy = config.placement_group_config.get("strategy")
    return ModelConfig(
        **{name: getattr(model, name) for name in model.model_fields_set},
        placement_group_bundles=bundles,
        placement_group_strategy=strategy,
    )


def _bundles(config: LLMConfig) -> tuple[dict[str, float], ...]:
    placement = config.placement_group_config or {}
    if "bundles" in placement:
        return tuple(dict(bundle) for bundle in placement["bundles"])
    ranks = math.prod(int(config.engine_kwargs.get(name) or 1) for name in _RANKS)
    return tuple(dict(placement["bundle_per_worker"]) for _ in range(ranks))


def _engine_config(config: LLMConfig, plugin: EnginePlugin) -> dict[str, Any]:
    """Put each of ``engine_kwargs`` where the plugin takes it: as a setting, or among the engine's own arguments."""
    fields = plugin.config.model_fields
    settings: dict[str, Any] = {}
    passed: dict[str, Any] = {}
    for key, value in config.engine_kwargs.items():
        target = settings if key in fields or "engine_kwargs" not in fields else passed
        target[key] = value
    if passed:
        settings["engine_kwargs"] = {**passed, **settings.get("engine_kwargs", {})}
    loading = config.model_loading_config
    if loading.tokenizer_source is not None:
        _setting(settings, plugin, "tokenizer", loading.tokenizer_source, "tokenizer_source")
    device = _device(config)
    if device is not None and "device" in fields:
        settings.setdefault("device", device)
    if config.log_engine_metrics is False:
        _setting(settings, plugin, "disable_log_stats", True, "log_engine_metrics")  # noqa: FBT003
    return settings


def _setting(settings: dict[str, Any], plugin: EnginePlugin, name: str, value: Any, source: str) -> None:
    if name not in plugin.config.model_fields:
        raise ConfigError(f"{source} is not supported: engine {plugin.name!r} has no setting {name!r}", param=source)
    settings.setdefault(name, value)


def _device(config: LLMConfig) -> str | None:
    if config.accelerator_type == _CPU:
        return "cpu"
    if config.accelerator_type is not None:
        return "cuda"
    if config.accelerator_config is not None:
        return "cpu" if config.accelerator_config.kind == "cpu" else "cuda"
    return None


def _adapters(config: LLMConfig) -> dict[str, str]:
    """Find the adapters in the folder of ``lora_config``: every subfolder that holds an ``adapter_config.json``."""
    lora = config.lora_config
    if lora is None or lora.dynamic_lora_loading_path is None:
        return {}
    folder = Path(lora.dynamic_lora_loading_path).expanduser().absolute()
    if not folder.is_dir():
        raise ConfigError(f"dynamic_lora_loading_path: no such folder {folder}", param="dynamic_lora_loading_path")
    found = {path.name: str(path) for path in sorted(folder.iterdir()) if (path / "adapter_config.json").is_file()}
    if not found:
        msg = f"dynamic_lora_loading_path: no subfolder of {folder} holds an adapter_config.json"
        raise ConfigError(msg, param="dynamic_lora_loading_path")
    if len(found) > lora.max_num_adapters_per_replica:
        msg = (
            f"max_num_adapters_per_replica is {lora.max_num_adapters_per_replica}, but {folder} holds {len(found)} "
            "adapters, which are all loaded at start; raise it or move some away"
        )
        raise ConfigError(msg, param="max_num_adapters_per_replica")
    return found


def serve_options(config: LLMConfig, *, name_prefix: str = "") -> dict[str, Any]:
    """Return the options of the deployment: what the engine needs, under what ``deployment_config`` asks for."""
    model = to_model_config(config)
    options = deployment_options(model, pipeline_spec(model))
    given = dict(config.deployment_config)
    if given.get("autoscaling_config") is not None or given.get("num_replicas") == "auto":
        options.pop("num_replicas", None)
    actor = dict(options["ray_actor_options"])
    for key, value in (given.pop("ray_actor_options", None) or {}).items():
        both = isinstance(value, dict) and isinstance(actor.get(key), dict)
        # runtime_env of the LLMConfig wins, as in Ray's modules.
        actor[key] = {**value, **actor[key]} if both else value
    name = given.pop("name", None) or deployment_name(config.model_id)
    return {**options, **given, "ray_actor_options": actor, "name": f"{name_prefix}{name}"}
