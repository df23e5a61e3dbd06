"""Decide whose tokenizer prompts go through: a Hugging Face one beside the model, or the one inside the GGUF file."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any, Final

from trunnion import TokenizerRef
from trunnion.errors import ConfigError

from ._llama import Model
from .config import LlamaCppConfig
from .template import ChatTemplate, read_template

OWN: Final = "gguf"
_FILE: Final = "tokenizer.json"


def tokenizer_ref(model: Model, file: str, config: LlamaCppConfig) -> TokenizerRef | None:
    """Return the tokenizer for the stages; None where the engine uses the file's own.

    Raises:
        ConfigError: The tokenizer that was named is one of another model.
    """
    wanted = config.tokenizer
    if wanted == OWN:
        return None
    folder = Path(wanted).expanduser() if wanted else Path(file).parent
    if wanted is None:
        usable = (folder / _FILE).is_file() and importlib.util.find_spec("transformers") is not None
        if not usable or difference(model, folder) is not None:
            return None
    elif (folder / _FILE).is_file() and (why := difference(model, folder)) is not None:
        raise ConfigError(f"tokenizer {wanted} is not the model's: {why}", param="tokenizer")
    template = config.chat_template and read_template(config.chat_template)
    if template is None and folder.is_dir() and not _has_template(folder):
        template = model.chat_template()
    return TokenizerRef(path=str(folder) if folder.is_dir() else str(wanted), chat_template=template)


def own_template(model: Model, config: LlamaCppConfig) -> ChatTemplate | None:
    """Return the chat template that the engine renders itself. Raises :class:`ConfigError` if it does not compile."""
    text = read_template(config.chat_template) if config.chat_template else model.chat_template()
    if text is None:
        return None
    return ChatTemplate(text, special={f"{name}_token": model.special_text(name) for name in ("bos", "eos")})


def difference(model: Model, folder: Path) -> str | None:
    """Return in what the tokens of a ``tokenizer.json`` differ from the model's; None if they are the same."""
    read = _json(folder / _FILE)
    try:
        tokens = {**read["model"]["vocab"], **{one["content"]: one["id"] for one in read.get("added_tokens", ())}}
        for token, number in tokens.items():
            there = model.token_text(number) if number < model.size else None
            if there != token:
                return f"token {number} is {token!r} there and {there!r} in the model"
    except (KeyError, TypeError, AttributeError) as error:
        return f"{folder / _FILE} cannot be compared ({type(error).__name__}: {error})"
    return None


def _has_template(folder: Path) -> bool:
    return (folder / "chat_template.jinja").is_file() or bool(
        _json(folder / "tokenizer_config.json").get("chat_template")
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}
