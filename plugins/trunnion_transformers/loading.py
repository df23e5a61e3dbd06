"""Load a model, its tokenizer and its defaults, on a worker thread."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from trunnion.errors import ConfigError, ModelNotFound

from .config import TransformersConfig
from .plan import Defaults

logger = logging.getLogger("trunnion.transformers")

_ONE_AT_A_TIME: Final = threading.Lock()
"""Loading sets torch's default dtype for the whole process."""
Kind = Literal["generate", "embed", "classify"]
_CAUSAL: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_CLASSIFIES: Final = "ForSequenceClassification"


@dataclass(slots=True, kw_only=True)
class Loaded:
    """Hold what was loaded.

    Attributes:
        model: The torch module, in evaluation mode on its device.
        tokenizer: None where the model has none.
        path: What the library was given.
        kind: What the model is for.
        device: Where it is.
        context: Tokens it can look at.
        eos: Ids that end a text.
        defaults: Its own sampling.
    """

    model: Any
    tokenizer: Any
    path: str
    kind: Kind
    device: Literal["cpu", "cuda"]
    context: int
    eos: tuple[int, ...] = ()
    defaults: Defaults

    @property
    def dtype(self) -> str:
        """Return the weights' type, such as "float32"."""
        return str(self.model.dtype).removeprefix("torch.")


def check_model(model: str) -> None:
    """Refuse a path that is not there, before anything heavy is imported. Raises :class:`ModelNotFound`."""
    if model.startswith(("/", "./", "../", "~")) and not Path(model).expanduser().exists():
        raise ModelNotFound(f"no model at {model}: the path does not exist", param="model")


def load(model: str, config: TransformersConfig) -> Loaded:
    """Load a model as configured.

    Raises:
        ConfigError: There is no GPU, or the model is one that this engine does not run.
        Exception: Whatever the library raises, to be mapped by :func:`.errors.load_error`.
    """
    path = str(Path(model).expanduser()) if model.startswith("~") else model
    import torch
    import transformers

    hub = {"revision": config.revision, "trust_remote_code": config.trust_remote_code}
    device = _device(config, has_gpu=torch.cuda.is_available())
    with _ONE_AT_A_TIME, _no_progress_bar():
        described = transformers.AutoConfig.from_pretrained(path, **hub)
        kind = kind_of(path, described, config.runner)
        cls = {
            "generate": transformers.AutoModelForCausalLM,
            "embed": transformers.AutoModel,
            "classify": transformers.AutoModelForSequenceClassification,
        }[kind]
        kwargs = {"dtype": _dtype(config, described, device, torch), **hub}
        if config.attention != "auto":
            kwargs["attn_implementation"] = config.attention
        network = cls.from_pretrained(path, **kwargs).to(device).eval()
        network.requires_grad_(False)  # noqa: FBT003 - torch's own signature
        tokenizer = _tokenizer(config.tokenizer or path, hub)
    text = described.get_text_config()
    return Loaded(
        model=network,
        tokenizer=tokenizer,
        path=path,
        kind=kind,
        device=device,
        context=_context(text, None if kind == "generate" else tokenizer),
        eos=_eos(network, text) if kind == "generate" else (),
        defaults=_defaults(network),
    )


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep the library's progress bar away: it writes over what others print, and starts a thread that stays."""
    from transformers.utils import logging as settings

    shown = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            settings.enable_progress_bar()


def _device(config: TransformersConfig, *, has_gpu: bool) -> Literal["cpu", "cuda"]:
    if config.device == "cuda" and not has_gpu:
        raise ConfigError("device is 'cuda', but torch sees no GPU; set it to 'auto' or 'cpu'", param="device")
    if config.device == "auto":
        return "cuda" if has_gpu else "cpu"
    return config.device


def kind_of(path: str, described: Any, runner: str) -> Kind:
    """Return what a model is for: as configured, else by its files and the name of its class."""
    if runner in ("generate", "embed", "classify"):
        return runner  # type: ignore[return-value]
    names = tuple(getattr(described, "architectures", None) or ())
    if any(name.endswith(_CLASSIFIES) for name in names):
        return "classify"
    if (Path(path) / "modules.json").exists():
        return "embed"
    if getattr(described, "is_encoder_decoder", False):
        raise ConfigError(f"{path} is an encoder-decoder model, which continuous batching does not run", param="model")
    return "generate" if not names or any(name.endswith(_CAUSAL) for name in names) else "embed"


def _dtype(config: TransformersConfig, described: Any, device: str, torch: Any) -> Any:
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    held = getattr(described, "dtype", None) or getattr(described.get_text_config(), "dtype", None) or torch.float32
    held = getattr(torch, held) if isinstance(held, str) else held
    return torch.float32 if device == "cpu" and held == torch.float16 else held


def _tokenizer(path: str, hub: Mapping[str, Any]) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, **hub)
    except (OSError, ValueError, ImportError) as error:
        logger.warning("no tokenizer at %s, so prompts must come as token ids: %s", path, error)
        return None


def _context(text: Any, tokenizer: Any) -> int:
    """Return the tokens a model can look at; for an encoder, its tokenizer may know better."""
    known = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions", "seq_length")]
    lengths = [int(length) for length in known if length]
    limit = getattr(tokenizer, "model_max_length", None)  # about 1e30 where it is not set
    if limit is not None and limit <= 10**9:
        lengths.append(int(limit))
    return min(lengths) if lengths else 4096


def _eos(network: Any, text: Any) -> tuple[int, ...]:
    eos = getattr(network.generation_config, "eos_token_id", None)
    if eos is None:
        eos = getattr(text, "eos_token_id", None)
    if eos is None:
        return ()
    return tuple(eos) if isinstance(eos, (list, tuple)) else (int(eos),)


def _defaults(network: Any) -> Defaults:
    generation = getattr(network, "generation_config", None)
    return Defaults() if generation is None else Defaults.of(generation.to_dict())


def read_json(path: str, *names: str) -> Any:
    """Return a JSON file of a local model folder; None where it is not there."""
    try:
        return json.loads(Path(path, *names).read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as error:
        raise ConfigError(f"{Path(path, *names)} is no JSON: {error}", param="model") from error
