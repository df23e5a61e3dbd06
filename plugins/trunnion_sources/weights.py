"""Choose, among the files of a repository, those that an engine needs: one format of the weights, not all."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Final

from .config import HubConfig

_SAFETENSORS: Final = ("*.safetensors", "*.safetensors.index.json")
_BIN: Final = ("*.bin", "*.bin.index.json")
_OTHERS: Final = (
    "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite", "*.gguf",
    "*.mlmodel", "*.mlpackage/*", "onnx/*", "openvino/*", "coreml/*", "original/*",
)  # fmt: skip
_NEVER: Final = (".gitattributes", "*.md", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.mp4", "*.pdf")


def choose(paths: Iterable[str], config: HubConfig) -> list[str]:
    """Return the files to fetch, in the order they came.

    With ``weights="auto"`` or "safetensors", other formats are left out where there are safetensors; with "auto" or
    "bin", others but ``*.bin`` where there are those. Where there is no such format, all are taken: better too much
    than a model without weights. What the user allows is taken whatever it is, and what is ignored is not.
    """
    paths = [path for path in paths if not _any(path, config.ignore)]
    if config.allow:
        return [path for path in paths if _any(path, config.allow)]
    if config.weights == "all":
        return paths
    left_out: tuple[str, ...] = ()
    if config.weights in ("auto", "safetensors") and any(_any(path, _SAFETENSORS[:1]) for path in paths):
        left_out = (*_BIN, *_OTHERS)
    elif config.weights in ("auto", "bin") and any(_any(path, _BIN[:1]) for path in paths):
        left_out = (*_SAFETENSORS, *_OTHERS)
    return [path for path in paths if not _any(path, (*left_out, *_NEVER))]


def _any(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)
