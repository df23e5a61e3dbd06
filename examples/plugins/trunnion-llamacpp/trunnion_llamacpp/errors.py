"""Map what llama.cpp, and Python on its behalf, fails with onto the one error tree."""

from __future__ import annotations

from pathlib import Path

from trunnion.errors import Cancelled, ConfigError, InternalError, ModelNotFound, Overloaded, TrunnionError

from ._llama import ClosedError, LibraryError

_MAGIC = b"GGUF"


def model_file(model: str) -> str:
    """Return the GGUF file that a model's name means: the file, or the only one (the first part) in a folder.

    Raises:
        ModelNotFound: There is none.
        ConfigError: It is no GGUF file, or there are several.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        found = sorted(file for file in path.glob("*.gguf") if _is_whole(file))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise ConfigError(f"{model} holds several GGUF files ({names}); name one of them", param="model")
        if not found:
            how = "convert it: python -m trunnion_llamacpp.convert MODEL FILE.gguf"
            raise ModelNotFound(f"{model} holds no GGUF file; llama.cpp reads no other; {how}", param="model")
        path = found[0]
    if not path.is_file():
        raise ModelNotFound(f"no model at {model}: the path does not exist", param="model")
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as error:
        raise ModelNotFound(f"{path} cannot be read: {error}", param="model") from error
    if head != _MAGIC:
        how = "convert a model of safetensors with python -m trunnion_llamacpp.convert MODEL FILE.gguf"
        raise ConfigError(f"{path} is no GGUF file; {how}", param="model")
    return str(path)


def _is_whole(file: Path) -> bool:
    """Tell whether a file is a model, or the first part of one: neither a later part nor a projector for images."""
    name = file.name
    part = "-of-" in name and not name.rpartition("-of-")[0].endswith("-00001")
    return not part and not name.startswith("mmproj")


def map_error(error: BaseException) -> TrunnionError:
    """Return the error of the tree for what the library, or Python on its behalf, raised while it ran."""
    if isinstance(error, TrunnionError):
        return error
    if isinstance(error, ClosedError):
        return Cancelled("the engine was stopped")
    if isinstance(error, MemoryError):
        return Overloaded("there is no memory for this request; ask for less at a time")
    return InternalError(f"llama.cpp failed: {type(error).__name__}: {error}")


def start_error(model: str, error: Exception) -> TrunnionError:
    """Return the error of the tree for what starting raised."""
    if isinstance(error, LibraryError):
        return ConfigError(f"llama.cpp cannot load {model}: {error}", param="model")
    if isinstance(error, ImportError):
        how = "pip install llama-cpp-python (it is compiled: cmake and a C++ compiler are needed)"
        return InternalError(f"the llama.cpp engine lacks a library: {error}; {how}")
    if isinstance(error, (MemoryError, OSError)):
        return ConfigError(f"{model} and its KV cache do not fit: {error}; lower n_ctx", param="n_ctx")
    return map_error(error)
