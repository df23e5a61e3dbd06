"""Choose, among the files of a repository, those that an engine needs: one format of the weights, not all."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Final

from .config import HubConfig

_FORMATS: Final = {
    "safetensors": ("*.safetensors", "*.safetensors.index.json"),
    "bin": ("*.bin", "*.bin.index.json"),
}
_OTHERS: Final = ("*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack", "*.ot", "*.onnx", "*.onnx_data", "*.tflite", "*.gguf")
_FOLDERS: Final = ("onnx/*", "openvino/*", "coreml/*", "original/*", "*.mlpackage/*")
_NEVER: Final = (".gitattributes", "*.md", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.mp4", "*.pdf")


def choose(paths: Iterable[str], config: HubConfig) -> list[str]:
    """Return the files to fetch, in the order they came.

    Of the formats that lie side by side in one folder, one is taken: the one asked for; with "auto" safetensors, or
    else bin. A folder without either keeps all it has: better too much than a model without weights. What the user
    allows is taken whatever it is, and what is ignored is not.
    """
    paths = [path for path in paths if not _any(path, config.ignore)]
    if config.allow:
        return [path for path in paths if _any(path, config.allow)]
    if config.weights == "all":
        return paths
    preferred = ("safetensors", "bin") if config.weights == "auto" else (config.weights,)
    there: dict[str, set[str]] = {}
    for path in paths:
        there.setdefault(_folder(path), set()).update(name for name, files in _FORMATS.items() if _any(path, files[:1]))
    taken = {folder: next((name for name in preferred if name in names), None) for folder, names in there.items()}
    usable = any(taken.values())

    def left_out(path: str) -> bool:
        if _any(path, _NEVER) or (usable and _any(path, _FOLDERS)):
            return True
        mine = taken[_folder(path)]
        if mine is None:
            return False
        rivals = [pattern for name, files in _FORMATS.items() if name != mine for pattern in files]
        return _any(path, (*rivals, *_OTHERS))

    return [path for path in paths if not left_out(path)]


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _any(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(path, pattern) for pattern in patterns)
