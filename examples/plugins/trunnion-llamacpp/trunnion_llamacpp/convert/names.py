"""Translate the names of a Llama's or Qwen2's tensors, and the order of rows that llama.cpp wants."""

from __future__ import annotations

import re
from typing import Any, Final

from .problem import ConversionError

_LAYER: Final = re.compile(r"model\.layers\.(\d+)\.(.+)")
_IN_LAYER: Final = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OUTSIDE: Final = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
IGNORED: Final = re.compile(r".*\.rotary_emb\.inv_freq")


def gguf_module(name: str) -> str:
    """Return GGUF's name of a module. Raises :class:`ConversionError` for one that these architectures do not have."""
    if match := _LAYER.fullmatch(name):
        if match[2] in _IN_LAYER:
            return f"blk.{match[1]}.{_IN_LAYER[match[2]]}"
    elif name in _OUTSIDE:
        return _OUTSIDE[name]
    raise ConversionError(f"module {name} is none of a Llama's or Qwen2's")


def gguf_tensor(name: str) -> str:
    """Return GGUF's name of a weight or bias."""
    module, _, kind = name.rpartition(".")
    return f"{gguf_module(module)}.{kind}"


def rotated(tensor: Any, heads: int) -> Any:
    """Order the rows of a Llama's query or key weights as llama.cpp rotates them: pairs beside each other.

    Hugging Face rotates the first half of a head's rows with its second half.
    """
    shape = tensor.shape
    return tensor.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
