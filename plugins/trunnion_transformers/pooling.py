"""Say how an encoder's token vectors become one, as the model's sentence-transformers files have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from trunnion.errors import ConfigError

from .config import TransformersConfig
from .loading import read_json

Pool = Literal["mean", "cls", "last", "max"]
_MODES: Final[dict[str, Pool]] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
}
_NAMES: Final[dict[str, Pool]] = {"mean": "mean", "cls": "cls", "lasttoken": "last", "last": "last", "max": "max"}
_KNOWN: Final = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """Hold how vectors are made; ``max_tokens`` is the longest text, None where the files do not say."""

    mode: Pool = "mean"
    normalize: bool = True
    max_tokens: int | None = None


def read_pooling(path: str, config: TransformersConfig) -> Pooling:
    """Return what the configuration says, else the model's files, else mean and length 1.

    Raises:
        ConfigError: The files ask for what this engine does not have.
    """
    files = _of_files(path, config)
    return Pooling(
        mode=files.mode if config.pooling == "auto" else config.pooling,
        normalize=files.normalize if config.normalize is None else config.normalize,
        max_tokens=files.max_tokens,
    )


def _of_files(path: str, config: TransformersConfig) -> Pooling:
    modules = read_json(path, "modules.json")
    if modules is None:
        return Pooling()
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    if unknown := [kind for kind in kinds if kind not in _KNOWN]:
        raise ConfigError(f"{path} has a module {unknown[0]}, which this engine does not run", param="model")
    mode: Pool = "mean"
    for module, kind in zip(modules, kinds, strict=True):
        if kind == "Pooling" and config.pooling == "auto":
            mode = _mode(path, read_json(path, str(module.get("path", "")), "config.json") or {})
    length = (read_json(path, "sentence_bert_config.json") or {}).get("max_seq_length")
    return Pooling(mode=mode, normalize="Normalize" in kinds, max_tokens=None if length is None else int(length))


def _mode(path: str, pooling: dict[str, Any]) -> Pool:
    named = pooling.get("pooling_mode")
    asked = [named] if named else [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    known = {**_MODES, **_NAMES}
    if len(asked) == 1 and asked[0] in known:
        return known[asked[0]]
    raise ConfigError(
        f"{path} pools its vectors by {' and '.join(map(str, asked)) or 'nothing'}; this engine knows "
        f"{', '.join(sorted(set(_MODES.values())))}: set pooling to one of them",
        param="pooling",
    )
