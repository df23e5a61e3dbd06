"""Start the untrained model where it learns to copy soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

_CONSTANT = 0.3
"""What every token has in the first place of its embedding, for queries and keys to read."""

_SHARPNESS = 7.0
"""Length of each rotating pair of the query and of the key."""

_PAIRS = 16
"""How many of the fastest rotating pairs take part; slower ones tell neighbours not apart."""


def prepare(model: LlamaForCausalLM) -> None:
    """Set the first layer so that head 0 attends one token back and head 1 two tokens back.

    The two share the first KV head. And widen the embeddings to length 1: tied to the output, they
    must name a token in a vocabulary of thousands, and from the usual 0.02 a place they take long
    to grow there.

    Copying a name from the prompt takes such a head and another that builds on it (induction
    heads, https://arxiv.org/abs/2209.11895). Left to chance, a model this small finds the first
    so late that there is no time left for the second.

    With rotary embeddings a query and a key that do not depend on the token score
    sum_i cos(f_i (distance - back)) when the query is turned back by f_i * back beforehand, where
    f_i = theta ** (-2 i / head_dim): the maximum lies at `back`.
    """
    with torch.no_grad():
        config = model.config
        embedding = model.model.embed_tokens.weight
        torch.nn.init.normal_(embedding, std=config.hidden_size**-0.5)
        embedding[:, 0] = _CONSTANT
        read = _CONSTANT / embedding.square().mean(dim=1).sqrt().mean()
        half = config.head_dim // 2
        index = torch.arange(_PAIRS)
        turn = 10000.0 ** (-2.0 * index / config.head_dim)
        attention = model.model.layers[0].self_attn
        attention.k_proj.weight[index, 0] = _SHARPNESS / read
        for head, back in enumerate((1, 2)):
            rows = head * config.head_dim + index
            attention.q_proj.weight[rows, 0] = _SHARPNESS / read * torch.cos(turn * back)
            attention.q_proj.weight[rows + half, 0] = -_SHARPNESS / read * torch.sin(turn * back)
