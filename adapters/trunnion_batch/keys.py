"""Make the key of a request: a digest of all that determines its answer, and of nothing else."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from trunnion import EngineSpec, GenerateRequest, Prepared, Prompt, TextPrompt, TokensPrompt
from trunnion.pooling import PoolingRequest
from trunnion.row_tasks import RowRequest

KEY_BYTES: Final = 16
_FORMAT: Final = 1
"""Raised when keys are made in another way, which makes all older ones strangers."""


class RequestKeys:
    """Make the keys of one job's requests. Not thread-safe.

    A key covers the rendered prompt (tokens or text, or the messages where the engine templates itself), media, the
    sampling parameters, tools and format, the adapter, what was passed on to the engine with the request, the model,
    the engine and its plugin's semantic version, and settings of hooks. Not covered are ids, deadlines, priorities and
    the engine's own settings: a batch may be resumed on more GPUs.
    """

    def __init__(self, engine: EngineSpec, semantic_version: str, *, hooks: Mapping[str, Any] | None = None) -> None:
        identity = [_FORMAT, engine.engine, semantic_version, engine.model, hooks or {}]
        self._base = hashlib.blake2b(_json(identity), digest_size=KEY_BYTES)
        self._seen: dict[int, tuple[object, bytes]] = {}

    def key(self, asked: RowRequest, prepared: Prepared | None = None) -> bytes:
        """Return the key of a request; ``prepared`` has its rendered prompt."""
        digest = self._base.copy()
        if isinstance(asked, PoolingRequest):
            digest.update(_json([asked.task, asked.texts, asked.dimensions, asked.adapter]))
            _add_prompt(digest, asked.prompt)
            return digest.digest()
        digest.update(self._sampling(asked))
        rest = _rest(asked)
        if rest:
            digest.update(_json(rest))
        _add_prompt(digest, asked.prompt if prepared is None else prepared.request.prompt)
        return digest.digest()

    def _sampling(self, asked: GenerateRequest) -> bytes:
        """Return the digest of the sampling parameters, made once for the many rows that share them."""
        sampling = asked.sampling
        found = self._seen.get(id(sampling))
        if found is None or found[0] is not sampling:
            values = {name: value for name, value in asdict(sampling).items() if value is not None}
            found = sampling, hashlib.blake2b(_json(values), digest_size=KEY_BYTES).digest()
            if len(self._seen) > 4096:  # noqa: PLR2004 - a bound on memory
                self._seen.clear()
            self._seen[id(sampling)] = found
        return found[1]


def _rest(asked: GenerateRequest) -> dict[str, Any]:
    rest: dict[str, Any] = {}
    for name in ("tools", "tool_choice", "parallel_tool_calls", "adapter", "extra", "cache_salt", "handoff"):
        value = getattr(asked, name)
        if value is not None and value != ():
            rest[name] = value
    if asked.output_format is not None:
        rest["output_format"] = [asked.output_format.kind, asdict(asked.output_format)]
    if asked.media:
        rest["media"] = [
            [part.type, part.url, None if part.data is None else hashlib.blake2b(part.data).hexdigest()]
            for part in asked.media
        ]
    return rest


def _add_prompt(digest: Any, prompt: Prompt) -> None:
    digest.update(prompt.kind.encode())
    if isinstance(prompt, TokensPrompt):
        digest.update(array("q", prompt.token_ids).tobytes())
    elif isinstance(prompt, TextPrompt):
        digest.update(b"+" if prompt.add_special_tokens else b"-")
        digest.update(prompt.text.encode("utf-8", "surrogatepass"))
    else:
        digest.update(_json(asdict(prompt)))


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=_unusual).encode("utf-8", "surrogatepass")


def _unusual(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"bytes": hashlib.blake2b(value).hexdigest()}
    if isinstance(value, Mapping):
        return dict(value)
    return repr(value)


__all__ = ["KEY_BYTES", "RequestKeys"]
