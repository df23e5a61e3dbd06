"""Answer ``POST /v1/embeddings``."""

from __future__ import annotations

import base64
import sys
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trunnion.events import Usage

from .call import Call
from .completions import parse_prompts
from .generation import check_choices
from .wire import decode_embedding, encode

if TYPE_CHECKING:
    from .app import App


async def embeddings(app: App, call: Call) -> None:
    """Decode, embed, answer with floats or with base64 of little-endian float32."""
    body = decode_embedding(await call.body(app.settings))
    handle, adapter = app.find(call, body.model)
    prompts = parse_prompts(body.input, "input")
    check_choices(len(prompts), app.settings, "input")
    app.ids(call, None)
    call.watch(app.watch)
    found = await handle.embed(prompts, dimensions=body.dimensions, adapter=adapter)
    packed = body.encoding_format == "base64"
    data: list[dict[str, Any]] = [
        {"object": "embedding", "index": index, "embedding": _base64(e.vector) if packed else list(e.vector)}
        for index, e in enumerate(found)
    ]
    tokens = sum(e.usage.prompt_tokens for e in found)
    call.usage = Usage(prompt_tokens=tokens, completion_tokens=0)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    model = body.model or handle.name
    await call.answer(encode({"object": "list", "data": data, "model": model, "usage": usage}))


def _base64(vector: Sequence[float]) -> str:
    packed = array("f", vector)
    if sys.byteorder == "big":
        packed.byteswap()
    return base64.b64encode(packed.tobytes()).decode()
