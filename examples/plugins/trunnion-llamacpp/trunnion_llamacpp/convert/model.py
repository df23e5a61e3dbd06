"""Convert a Llama's or Qwen2's folder to a GGUF file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from .names import IGNORED, gguf_tensor, rotated
from .problem import ConversionError, read_json
from .tensors import read_tensors, weight_files
from .vocabulary import read_vocabulary

ARCHITECTURES: Final = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2"}
FILE_TYPES: Final = {"f32": 0, "f16": 1}
_SAMPLING: Final = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def architecture(config: dict[str, Any]) -> str:
    """Return GGUF's name of a model's architecture. Raises :class:`ConversionError` for one that is not known."""
    names = config.get("architectures") or ["none"]
    if names[0] not in ARCHITECTURES:
        raise ConversionError(f"architecture {names[0]} cannot be converted; {', '.join(ARCHITECTURES)} can")
    if config.get("hidden_act", "silu") != "silu":
        raise ConversionError(f"hidden_act {config['hidden_act']} cannot be converted; silu can")
    if config.get("use_sliding_window"):
        raise ConversionError("a sliding attention window cannot be converted")
    return ARCHITECTURES[names[0]]


def convert_model(folder: Path, file: Path, *, kind: Literal["f32", "f16"] = "f16") -> None:
    """Write the model of a folder, tokenizer and chat template included, to a GGUF file.

    Args:
        folder: config.json, tokenizer.json and safetensors, as transformers writes them.
        file: Where to; it is replaced once all went well.
        kind: Type of the matrices; vectors are float32 in any case.

    Raises:
        FileNotFoundError: A file of the model is missing.
        ConversionError: The architecture, the tokenizer or a tensor is not known here.
    """
    import gguf

    config = read_json(folder / "config.json")
    arch = architecture(config)
    part = file.with_name(file.name + ".part")
    writer = gguf.GGUFWriter(part, arch)
    try:
        writer.add_name(folder.resolve().name)
        writer.add_file_type(FILE_TYPES[kind])
        _add_shape(writer, config)
        _add_sampling(writer, folder)
        _add_vocabulary(writer, folder, config)
        names = _add_tensors(writer, folder, config, arch, kind)
        if not config.get("tie_word_embeddings") and "output.weight" not in names:
            raise ConversionError(f"{folder} lacks lm_head.weight, and its embeddings are not tied")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def heads(config: dict[str, Any]) -> tuple[int, int]:
    """Return the number of attention heads, and of those for keys and values."""
    count = int(config["num_attention_heads"])
    return count, int(config.get("num_key_value_heads") or count)


def _head_size(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """Return the rotation's parameters, wherever a version of transformers puts them."""
    old = config.get("rope_scaling") or {}
    rope = {"rope_theta": config.get("rope_theta", 10000.0), **old, **(config.get("rope_parameters") or {})}
    return {**rope, "rope_type": rope.get("rope_type") or rope.get("type") or "default"}


def _add_shape(writer: Any, config: dict[str, Any]) -> None:
    count, shared = heads(config)
    size = _head_size(config)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(count)
    writer.add_head_count_kv(shared)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = _rope(config)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", _llama3_factors(rope, size))
    elif rope["rope_type"] != "default":
        raise ConversionError(f"rotation of type {rope['rope_type']} cannot be converted; default, linear, llama3 can")


def _llama3_factors(rope: dict[str, Any], size: int) -> Any:
    """Return by how much each frequency of a head's rotation is divided, as Llama 3.1 stretches its context.

    Long waves by the whole factor, short ones not at all, those between in proportion.
    """
    waves = 2 * math.pi * rope["rope_theta"] ** (np.arange(0, size, 2) / size)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    share = np.clip((rope["original_max_position_embeddings"] / waves - low) / (high - low), 0, 1)
    return (1 / ((1 - share) / rope["factor"] + share)).astype(np.float32)


def _add_sampling(writer: Any, folder: Path) -> None:
    """Write the model's own sampling; a model that says ``do_sample: false`` is greedy."""
    file = folder / "generation_config.json"
    values = read_json(file) if file.exists() else {}
    if values.get("do_sample") is False:
        values["temperature"] = 0.0
    add = {
        "temperature": writer.add_sampling_temp,
        "top_k": writer.add_sampling_top_k,
        "top_p": writer.add_sampling_top_p,
        "min_p": writer.add_sampling_min_p,
        "repetition_penalty": writer.add_sampling_penalty_repeat,
    }
    for name in _SAMPLING:
        if values.get(name) is not None:
            add[name](values[name])


def _add_vocabulary(writer: Any, folder: Path, config: dict[str, Any]) -> None:
    vocabulary = read_vocabulary(folder, config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    for name, number in vocabulary.ids.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.template is not None:
        writer.add_chat_template(vocabulary.template)


def _add_tensors(writer: Any, folder: Path, config: dict[str, Any], arch: str, kind: str) -> set[str]:
    count, shared = heads(config)
    turned = {"attn_q": count, "attn_k": shared} if arch == "llama" else {}
    added = set()
    for name, tensor in read_tensors(weight_files(folder)):
        if IGNORED.fullmatch(name) or (name == "lm_head.weight" and config.get("tie_word_embeddings")):
            continue
        made = gguf_tensor(name)
        module = made.split(".")[-2]
        values = rotated(tensor, turned[module]) if module in turned else tensor
        matrix = values.ndim > 1 and kind == "f16"
        writer.add_tensor(made, np.ascontiguousarray(values, dtype=np.float16 if matrix else np.float32))
        added.add(made)
    return added
