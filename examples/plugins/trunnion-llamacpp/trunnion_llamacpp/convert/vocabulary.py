"""Translate a tokenizer.json of the byte-level BPE kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from .problem import ConversionError, read_json

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
_LETTERS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS: Final = {
    None: "gpt-2",  # ByteLevel's own expression
    _LETTERS + r"\p{N}" + _REST: "qwen2",
    _LETTERS + r"\p{N}{1,3}" + _REST: "llama-bpe",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Hold what GGUF says of a tokenizer.

    Attributes:
        tokens, types: By id, filled up to the size of the model's embedding.
        merges: Pairs with a space between, the earliest first.
        pre: llama.cpp's name of the expression that parts text into words.
        ids: "bos", "eos", "pad" and "unk", where the model has them.
        add_bos: Whether plain text gets BOS in front.
        template: The chat template.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str
    ids: dict[str, int]
    add_bos: bool
    template: str | None


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read the tokenizer of a model's folder.

    Raises:
        FileNotFoundError: There is no tokenizer.json.
        ConversionError: It is of a kind that is not known here.
    """
    file = folder / "tokenizer.json"
    read = read_json(file)
    model = read.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = "SentencePiece's BPE" if model.get("byte_fallback") else model.get("type")
        raise ConversionError(f"{file} is a tokenizer of kind {kind}; byte-level BPE alone can be converted")
    _check_normalizer(file, read.get("normalizer"))
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    tokens: dict[int, str] = {number: token for token, number in model["vocab"].items()}
    types = dict.fromkeys(tokens, NORMAL)
    for added in read.get("added_tokens") or ():
        tokens[added["id"]] = added["content"]
        types[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    if max(tokens) >= size:
        raise ConversionError(f"{file} holds token {max(tokens)}, and the model's embedding ends at {size - 1}")
    numbers = {token: number for number, token in tokens.items()}
    ids = _ids(folder, settings, numbers)
    return Vocabulary(
        tokens=[tokens.get(number, f"[UNUSED{number}]") for number in range(size)],
        types=[types.get(number, UNUSED) for number in range(size)],
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        pre=_pre(file, read.get("pre_tokenizer")),
        ids=ids,
        add_bos=_adds_bos(file, read.get("post_processor"), tokens.get(ids.get("bos", -1))),
        template=_template(folder, settings),
    )


def _parts(entry: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    """Return the members of a sequence, or the one there is."""
    if entry is None:
        return []
    return list(entry[key]) if entry.get("type") == "Sequence" else [entry]


def _check_normalizer(file: Path, normalizer: dict[str, Any] | None) -> None:
    for part in _parts(normalizer, "normalizers"):
        if part.get("type") != "NFC":  # what text comes as, nearly always; llama.cpp takes it as it is
            raise ConversionError(f"{file} normalizes text by {part.get('type')}, which GGUF cannot say")


def _pre(file: Path, pre_tokenizer: dict[str, Any] | None) -> str:
    parts = _parts(pre_tokenizer, "pretokenizers")
    levels = [part for part in parts if part.get("type") == "ByteLevel"]
    splits = [part for part in parts if part.get("type") == "Split"]
    if len(levels) != 1 or len(levels) + len(splits) != len(parts) or len(splits) > 1:
        kinds = ", ".join(str(part.get("type")) for part in parts) or "none"
        raise ConversionError(f"{file} parts text by {kinds}; ByteLevel, after one Split at most, can be converted")
    if levels[0].get("add_prefix_space"):
        raise ConversionError(f"{file} puts a space before each text, which GGUF cannot say of this kind")
    split = splits[0]["pattern"].get("Regex") if splits else None
    if (split is None) != levels[0].get("use_regex", True) or split not in _SPLITS:
        raise ConversionError(f"{file} parts text by {split!r}; known are those of GPT-2, Llama 3 and Qwen2")
    return _SPLITS[split]


def _adds_bos(file: Path, post: dict[str, Any] | None, bos: str | None) -> bool:
    for part in _parts(post, "processors"):
        if part.get("type") == "TemplateProcessing":
            around = [next(iter(piece.items())) for piece in part["single"]]
            added = [value["id"] for kind, value in around if kind == "SpecialToken"]
            if added == [bos] and around[0][0] == "SpecialToken":
                return True
            if added:
                raise ConversionError(f"{file} adds {', '.join(added)} to each text; BOS in front can be converted")
        elif part.get("type") != "ByteLevel":
            raise ConversionError(f"{file} has a post-processor {part.get('type')}, which is not known here")
    return False


def _ids(folder: Path, settings: dict[str, Any], numbers: dict[str, int]) -> dict[str, int]:
    """Return the special ids: the model's own configuration wins over the tokenizer's."""
    config = read_json(folder / "config.json")
    generation = folder / "generation_config.json"
    config |= {k: v for k, v in (read_json(generation) if generation.exists() else {}).items() if v is not None}
    found: dict[str, int] = {}
    for name in ("bos", "eos", "pad", "unk"):
        number = config.get(f"{name}_token_id")
        if isinstance(number, list):
            number = number[0]
        if number is None:
            text = settings.get(f"{name}_token")
            number = numbers.get(text.get("content") if isinstance(text, dict) else text)  # type: ignore[arg-type]
        if number is not None:
            found[name] = int(number)
    return found


def _template(folder: Path, settings: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = next((one["template"] for one in template if one.get("name") == "default"), None)
    return template
