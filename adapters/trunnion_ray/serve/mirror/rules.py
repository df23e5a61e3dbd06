"""Say, field by field, what becomes of the configurations of Ray's own LLM modules.

Every field is either *mapped*, with its effect, or *refused* where it is set, with the reason. Nothing is ignored.
Both generations are covered: Ray 2.44 and 2.60.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from trunnion.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Mapped:
    """Tell what a field does here."""

    effect: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Tell why a field is refused, and what to do instead."""

    reason: str


Rule = Mapped | Refused

_NOTHING_DOWNLOADED: Final = "nothing is downloaded here; adapters are read from a local folder"
_INGRESS_FIXED: Final = "the ingress is Trunnion's own; plug policy in through request hooks instead"

RULES: Final[dict[str, dict[str, Rule]]] = {
    "LLMConfig": {
        "runtime_env": Mapped("runtime_env of the replica, from which the engine's processes inherit"),
        "model_loading_config": Mapped("served name and model"),
        "llm_engine": Mapped("engine plugin: vLLM, or the name of any other"),
        "engine_kwargs": Mapped("the engine's configuration"),
        "accelerator_type": Mapped("None or CPU: no GPU; the name of a GPU: that type, as many as the engine's ranks"),
        "accelerator_config": Mapped("kind cpu or gpu: what the engine runs on; kind tpu is refused"),
        "placement_group_config": Mapped("the replica's bundles and their strategy"),
        "lora_config": Mapped("adapters found in a folder"),
        "deployment_config": Mapped("options of the Serve deployment"),
        "server_cls": Refused("the replica's class is Trunnion's own; llm_engine chooses the engine"),
        "experimental_configs": Mapped("num_ingress_replicas: gateway replicas; other keys are refused by name"),
        "log_engine_metrics": Mapped("False: the engine keeps no statistics; True is refused, metrics go not to Ray"),
        "callback_config": Refused("there are no start-up callbacks; register a trunnion hooks plugin instead"),
    },
    "ModelLoadingConfig": {
        "model_id": Mapped("the name that clients send"),
        "model_source": Mapped("path or Hub name of the model; a mirror in the cloud is refused"),
        "tokenizer_source": Mapped("the engine's setting `tokenizer`"),
    },
    "CloudMirrorConfig": {
        "bucket_uri": Refused("weights are not mirrored here; copy them to a disk the nodes share, and name the path"),
        "extra_files": Refused("files are not mirrored here; copy them to a disk the nodes share"),
    },
    "LoraConfig": {
        "dynamic_lora_loading_path": Mapped("local folder whose subfolders are the adapters; found when deployed"),
        "max_num_adapters_per_replica": Mapped("more adapters than this in the folder are refused"),
        "download_timeout_s": Refused(_NOTHING_DOWNLOADED),
        "max_download_tries": Refused(_NOTHING_DOWNLOADED),
    },
    "LLMServingArgs": {
        "llm_configs": Mapped("the models"),
        "ingress_cls_config": Refused(_INGRESS_FIXED),
        "ingress_deployment_config": Mapped("options of the gateway's deployment"),
    },
}
"""The rule of each field, by the class it is in."""

EXPERIMENTAL: Final[dict[str, Rule]] = {
    "num_ingress_replicas": Mapped("gateway replicas"),
    "num_router_replicas": Refused("it is called num_ingress_replicas"),
    "stream_batching_interval_ms": Refused("pieces of a stream are joined by engine step, never held back by a timer"),
    "dp_size_per_node": Refused("data parallelism inside one engine is engine_kwargs['data_parallel_size']"),
}
"""The rule of each key of ``experimental_configs``."""

DEPLOYMENT_REFUSED: Final[dict[str, str]] = {
    "placement_group_bundles": "use placement_group_config of the LLMConfig",
    "placement_group_strategy": "use placement_group_config of the LLMConfig",
    "user_config": "a replica takes no configuration after its start; deploy the application again",
    "gang_scheduling_config": "replicas are independent here; an engine's ranks are placed by placement_group_config",
    "version": "Serve derives the version from the configuration",
}
"""Options of a Serve deployment that make no sense here, and why."""


def refuse_set(owner: str, names: Iterable[str]) -> None:
    """Refuse the fields of a class that were set and have a *refused* rule. Raises :class:`ConfigError`."""
    for name in names:
        rule = RULES[owner].get(name)
        if isinstance(rule, Refused):
            raise ConfigError(f"{owner}.{name} is not supported: {rule.reason}", param=name)
