"""Load each model's tokenizer once per process; the one module that knows transformers and tokenizers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from trunnion.engine import TokenizerRef
from trunnion.errors import ConfigError, InternalError, ModelNotFound, PluginNotInstalled
from trunnion.stage import StageContext


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedTokenizer:
    """Hold a tokenizer in the forms the stages need.

    Attributes:
        path: Where it was loaded from.
        templater: transformers' tokenizer, for its chat templates.
        backend: The ``tokenizers.Tokenizer``. Nothing sets truncation or padding on it, so threads may share it.
        special_tokens: The texts of bos_token, eos_token and so on, which templates refer to by these names.
        bos_id: BOS where plain text gets it in front, else None.
        special_ids: Ids that ``skip_special_tokens`` leaves out, and EOS.
    """

    path: str
    templater: Any
    backend: Any
    special_tokens: Mapping[str, str]
    bos_id: int | None
    special_ids: frozenset[int]


_cache: Final[dict[tuple[str, str | None, bool], LoadedTokenizer]] = {}
_lock: Final = threading.Lock()


def tokenizer_ref(context: StageContext, stage: str) -> TokenizerRef:
    """Return the engine's tokenizer reference.

    Raises:
        ConfigError: The engine keeps its tokenizer to itself.
    """
    ref = context.info.tokenizer
    if ref is None:
        msg = (
            f"stage {stage!r} needs the model's tokenizer, but engine {context.info.engine!r} names none "
            f"(EngineInfo.tokenizer is None); send it messages or text as they are, or leave the stage out"
        )
        raise ConfigError(msg, param=f"stages.{stage}", details={"engine": context.info.engine})
    return ref


def load_tokenizer(ref: TokenizerRef, *, trust_remote_code: bool = False) -> LoadedTokenizer:
    """Return the tokenizer of ``ref``, loading it the first time it is asked for in this process.

    Raises:
        ConfigError: It has no fast backend.
        ModelNotFound: It cannot be loaded.
        PluginNotInstalled: transformers is missing.
    """
    trust = trust_remote_code or ref.trust_remote_code
    key = (ref.path, ref.revision, trust)
    with _lock:
        if key not in _cache:
            _cache[key] = _load(ref.path, ref.revision, trust=trust)
        return _cache[key]


def _load(path: str, revision: str | None, *, trust: bool) -> LoadedTokenizer:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        msg = f"the stages need transformers: {error}; install it with `pip install 'trunnion[transformers]'`"
        raise PluginNotInstalled(msg) from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=trust)
    except Exception as error:  # whatever a broken or missing model folder makes transformers raise
        msg = f"cannot load the tokenizer of {path!r}: {error}"
        raise ModelNotFound(msg, param="model", details={"path": path, "revision": revision}) from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        msg = (
            f"the tokenizer of {path!r} ({type(tokenizer).__name__}) has no fast backend, which the stages need; "
            f"convert it to tokenizer.json, or use an engine that takes messages as they are"
        )
        raise ConfigError(msg, param="model")
    backend.no_truncation()
    backend.no_padding()
    return LoadedTokenizer(
        path=path,
        templater=tokenizer,
        backend=backend,
        special_tokens=dict(tokenizer.special_tokens_map),
        bos_id=_added_bos(tokenizer, backend),
        special_ids=_special_ids(tokenizer, backend),
    )


def _added_bos(tokenizer: Any, backend: Any) -> int | None:
    ids = backend.encode("", add_special_tokens=True).ids
    bos: int | None = tokenizer.bos_token_id
    return bos if bos is not None and bos in ids[:1] else None


def _special_ids(tokenizer: Any, backend: Any) -> frozenset[int]:
    ids = {number for number, token in backend.get_added_tokens_decoder().items() if token.special}
    ids.update(number for number in (tokenizer.eos_token_id,) if number is not None)
    return frozenset(ids)


def template_module() -> Any:
    """Return transformers' module of chat template functions."""
    try:
        from transformers.utils import chat_template_utils
    except ImportError as error:  # pragma: no cover - the tokenizer could not have been loaded
        msg = f"transformers has no chat template functions: {error}"
        raise InternalError(msg) from error
    return chat_template_utils
