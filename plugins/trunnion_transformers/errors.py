"""Map what transformers, peft and torch raise onto the one error tree."""

from __future__ import annotations

from typing import Final

from trunnion.errors import (
    AdapterNotFound,
    ConfigError,
    InternalError,
    InvalidArgument,
    ModelNotFound,
    TrunnionError,
)

_HUB: Final = frozenset(
    {
        "RepositoryNotFoundError",
        "LocalEntryNotFoundError",
        "HFValidationError",
        "OfflineModeIsEnabled",
        "HfHubHTTPError",
    }
)
_MISSING: Final = (
    "not a valid model identifier",
    "Repo id must",
    "local directory",
    "couldn't connect",
    "offline mode",
)


def load_error(model: str, error: Exception) -> TrunnionError:
    """Return the error of the tree for what loading or setting up a model raised."""
    text = str(error) or type(error).__name__
    named = {cls.__name__ for cls in type(error).__mro__}
    if isinstance(error, TrunnionError):
        return error
    if "FlashAttention" in text:
        made: TrunnionError = ConfigError(f"flash attention cannot run here: {text}; set attention", param="attention")
    elif named & _HUB or isinstance(error, OSError) or any(phrase in text for phrase in _MISSING):
        made = ModelNotFound(f"model {model!r} cannot be read: {text}", param="model")
    elif isinstance(error, ImportError):
        made = InternalError(f"the transformers engine lacks a library: {text}; `pip install 'trunnion[transformers]'`")
    elif isinstance(error, MemoryError) or "out of memory" in text.lower():
        made = ConfigError(f"{model!r} and its KV cache do not fit: {text}; lower num_blocks", param="num_blocks")
    elif isinstance(error, (ValueError, TypeError, KeyError, NotImplementedError, AttributeError)):
        made = ConfigError(f"transformers cannot run {model!r} as configured: {text}", param="model")
    else:
        made = InternalError(f"transformers could not start {model!r}: {type(error).__name__}: {text}")
    return made


def adapter_error(name: str, path: str, error: Exception) -> TrunnionError:
    """Return the error of the tree for what loading an adapter raised."""
    text = str(error) or type(error).__name__
    if isinstance(error, TrunnionError):
        return error
    if isinstance(error, OSError):
        return AdapterNotFound(f"adapter {name!r}: {path} holds no adapter that can be read: {text}", param="adapter")
    if isinstance(error, ImportError):
        return InternalError(f"adapters need peft: {text}; `pip install 'trunnion[transformers]'`")
    return InvalidArgument(f"adapter {name!r} at {path} does not fit the model: {text}", param="adapter")
