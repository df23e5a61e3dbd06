"""Find the packaged model and copy it to where an engine can load it."""

from __future__ import annotations

import shutil
from pathlib import Path

_MODEL = Path(__file__).parent / "model"
_ADAPTERS = "adapters"


def model_path() -> Path:
    """Return the folder of the packaged model, in Hugging Face format. Treat it as read-only."""
    return _MODEL


def adapter_paths(model: Path | None = None) -> dict[str, Path]:
    """Return the folders of the LoRA adapters by name, sorted.

    Args:
        model: A folder that `write_demo_model` filled; the packaged model if None.
    """
    folder = (model or _MODEL) / _ADAPTERS
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir()}


def write_demo_model(path: Path, *, force: bool = False) -> Path:
    """Copy the demo model to `path` and return that path, made absolute.

    `path` becomes a model folder as `transformers` and vLLM load it; the adapters lie in
    `path/adapters/NAME`.

    Args:
        path: The folder to fill; it is made where it is missing, with its parents.
        force: Replace files of the same name in a folder that is not empty. Files of other names
            stay.

    Raises:
        FileExistsError: `path` is a folder that is not empty and `force` is false.
        NotADirectoryError: `path` is a file.
    """
    target = path.expanduser().absolute()
    if target.exists() and not target.is_dir():
        message = f"{target} is a file; name a folder for the demo model"
        raise NotADirectoryError(message)
    if not force and target.exists() and any(target.iterdir()):
        message = f"{target} is not empty; name another folder, or force its files to be replaced"
        raise FileExistsError(message)
    shutil.copytree(_MODEL, target, copy_function=shutil.copyfile, dirs_exist_ok=True)
    return target
