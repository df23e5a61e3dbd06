"""Embed one prompt with vLLM's pooling runner."""

from __future__ import annotations

from typing import Any

from trunnion.engine import Embedding
from trunnion.errors import ContextOverflow
from trunnion.events import Usage
from trunnion.requests import new_request_id

from . import _vllm
from .errors import MAPPED


async def embed_one(llm: Any, token_ids: list[int], dimensions: int | None, lora: Any, context: int) -> Embedding:
    """Return the embedding of token ids.

    Raises:
        ContextOverflow: The prompt exceeds the context.
        InvalidArgument: The model does not embed, or not in that many dimensions.
    """
    if len(token_ids) > context:
        message = f"the prompt has {len(token_ids)} tokens, the model takes {context}; shorten the prompt"
        raise ContextOverflow(message, param="input")
    output: Any = None
    with MAPPED:
        params = _vllm.PoolingParams(task="embed", dimensions=dimensions)
        prompt = {"type": "token", "prompt_token_ids": token_ids}
        async for answer in llm.encode(prompt, params, new_request_id("emb"), lora_request=lora):
            output = answer
    usage = Usage(prompt_tokens=len(token_ids), completion_tokens=0, cached_tokens=output.num_cached_tokens or 0)
    return Embedding(vector=output.outputs.data.tolist(), usage=usage)
