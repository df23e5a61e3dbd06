"""Hold a model, its vocabulary and a context of llama.cpp; the modules that call the library are this and ``_sampler``.

Written against llama-cpp-python 0.3.36. Its ctypes calls release the GIL. What the library asserts ends the process, so
whatever goes in is checked before.
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final

import numpy as np

logger: Final = logging.getLogger("trunnion_llamacpp.library")
_LEVELS: Final = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.INFO, 4: logging.DEBUG}
_ERROR: Final = 3
_CACHE_TYPES: Final = {"f32": 0, "f16": 1, "q8_0": 8}
_local: Final = threading.local()
_kept: Final[list[Any]] = []


class LibraryError(Exception):
    """Say that llama.cpp refused something, in its own words."""


class ClosedError(Exception):
    """Say that the model was freed."""


@cache
def library() -> Any:
    """Import llama.cpp, once, and send what it logs to Python's logging instead of stderr."""
    import llama_cpp.llama_cpp as lib

    callback = lib.llama_log_callback(_log)
    _kept.append(callback)  # the library keeps a pointer to it
    lib.llama_log_set(callback, ctypes.c_void_p(0))
    lib.llama_backend_init()
    return lib


def _log(level: int, text: bytes, _data: object) -> None:
    line = text.decode("utf-8", "replace").strip()
    if line and level in _LEVELS:
        logger.log(_LEVELS[level], "%s", line)
        if level >= _ERROR and (lines := getattr(_local, "lines", None)) is not None:
            lines.append(line)


@contextmanager
def errors_said() -> Iterator[list[str]]:
    """Collect what the library says of errors on this thread."""
    lines: list[str] = []
    _local.lines = lines
    try:
        yield lines
    finally:
        _local.lines = None


class Model:
    """Hold a model and its vocabulary. Thread-safe: closing waits for calls that run."""

    def __init__(self, path: str, *, n_gpu_layers: int = 0, go_on: Callable[[], bool] = lambda: True) -> None:
        """Load a GGUF file. Raises :class:`LibraryError`.

        Args:
            path: The file; of a split model the first one.
            n_gpu_layers: Layers kept on the GPU, -1 for all.
            go_on: Asked while it loads; False gives up.
        """
        lib = self._lib = library()
        params = lib.llama_model_default_params()
        params.n_gpu_layers = n_gpu_layers
        asked = lib.llama_progress_callback(lambda _progress, _data: go_on())
        params.progress_callback = asked
        with errors_said() as lines:
            self.handle: Any = lib.llama_model_load_from_file(path.encode(), params)
        if not self.handle:
            raise LibraryError("; ".join(lines[:3]) or "it gives no reason")
        self.vocab: Any = lib.llama_model_get_vocab(self.handle)
        self.size = int(lib.llama_vocab_n_tokens(self.vocab))
        self.context = int(lib.llama_model_n_ctx_train(self.handle))
        self.ends = frozenset(i for i in range(self.size) if lib.llama_vocab_is_eog(self.vocab, i))
        self.forgets_parts = not (lib.llama_model_is_recurrent(self.handle) or lib.llama_model_is_hybrid(self.handle))
        self.decodes = bool(lib.llama_model_has_decoder(self.handle)) and not lib.llama_model_has_encoder(self.handle)
        self._pieces: dict[tuple[int, bool], bytes] = {}
        self._idle = threading.Condition()
        self._users = 0
        self._closed = False

    @contextmanager
    def in_use(self) -> Iterator[Any]:
        """Keep the model from being freed. Raises :class:`ClosedError` if it was."""
        with self._idle:
            if self._closed:
                raise ClosedError
            self._users += 1
        try:
            yield self._lib
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def meta(self, key: str) -> str | None:
        """Return a scalar of the file's metadata as text."""
        buffer = ctypes.create_string_buffer(1 << 16)
        with self.in_use() as lib:
            length = lib.llama_model_meta_val_str(self.handle, key.encode(), buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def chat_template(self) -> str | None:
        """Return the chat template inside the file."""
        with self.in_use() as lib:
            found: bytes | None = lib.llama_model_chat_template(self.handle, None)
        return None if found is None else found.decode("utf-8")

    def token_text(self, token: int) -> str:
        """Return a token as the vocabulary writes it: bytes of a BPE token in their printable stand-ins."""
        with self.in_use() as lib:
            found: bytes | None = lib.llama_vocab_get_text(self.vocab, token)
        return (found or b"").decode("utf-8", "replace")

    def special_text(self, name: str) -> str:
        """Return the text of the token "bos" or "eos"; empty where the vocabulary has none."""
        with self.in_use() as lib:
            token = int(getattr(lib, f"llama_vocab_{name}")(self.vocab))
        return self.piece(token, special=True).decode("utf-8", "replace") if 0 <= token < self.size else ""

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Return token ids; text that spells a special token is that token. Raises UnicodeEncodeError."""
        data = text.encode("utf-8")
        room = len(data) + 8
        with self.in_use() as lib:
            while True:
                tokens = (lib.llama_token * room)()
                found = lib.llama_tokenize(self.vocab, data, len(data), tokens, room, add_special, True)  # noqa: FBT003 - C
                if found >= 0:
                    return list(tokens[:found])
                room = -found

    def piece(self, token: int, *, special: bool) -> bytes:
        """Return the bytes a token stands for; those of special tokens where ``special``, else none."""
        key = (token, special)
        known = self._pieces.get(key)
        if known is None:
            buffer = ctypes.create_string_buffer(64)
            with self.in_use() as lib:
                length = lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
                if length < 0:
                    buffer = ctypes.create_string_buffer(-length)
                    length = lib.llama_token_to_piece(self.vocab, token, buffer, len(buffer), 0, special)
            known = self._pieces[key] = buffer.raw[:length]
        return known

    def load_adapter(self, path: str) -> Any:
        """Load a LoRA adapter from a GGUF file. Raises :class:`LibraryError`."""
        with self.in_use() as lib, errors_said() as lines:
            handle = lib.llama_adapter_lora_init(self.handle, path.encode())
        if not handle:
            raise LibraryError("; ".join(lines[:3]) or "it gives no reason")
        return handle

    def free_adapter(self, handle: Any) -> None:
        """Free an adapter that no context uses."""
        with self.in_use() as lib:
            lib.llama_adapter_lora_free(handle)

    def close(self) -> None:
        """Free the model and what was loaded into it, once nobody uses it. Idempotent."""
        with self._idle:
            if self._closed:
                return
            self._closed = True
            while self._users:
                self._idle.wait()
        self._lib.llama_model_free(self.handle)
        self.handle = self.vocab = None


class Context:
    """Hold a KV cache and compute with it. One thread at a time."""

    def __init__(
        self,
        model: Model,
        *,
        n_ctx: int,
        n_batch: int,
        n_seq_max: int,
        n_threads: int,
        cache_type: str = "f16",
        further: Mapping[str, float] | None = None,
    ) -> None:
        """Allocate it. Raises :class:`LibraryError`."""
        lib = self._lib = model._lib  # noqa: SLF001 - the same module
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max = n_ctx, n_batch, n_seq_max
        params.n_threads = params.n_threads_batch = n_threads
        params.type_k = params.type_v = _CACHE_TYPES[cache_type]
        params.kv_unified = True
        params.no_perf = True
        for name, value in (further or {}).items():
            setattr(params, name, value)
        with errors_said() as lines:
            self._handle: Any = lib.llama_init_from_model(model.handle, params)
        if not self._handle:
            raise LibraryError("; ".join(lines[:3]) or "it gives no reason")
        self._memory = lib.llama_get_memory(self._handle)
        self._vocabulary = model.size
        self.n_ctx = int(lib.llama_n_ctx(self._handle))
        self.n_batch = int(lib.llama_n_batch(self._handle))
        self.n_threads = int(lib.llama_n_threads(self._handle))
        self._adapter: Any = None
        self._make_batch()

    def _make_batch(self) -> None:
        """Lay out a batch over arrays of ours, filled by slices instead of token by token."""
        lib, size = self._lib, self.n_batch
        self._tokens = np.zeros(size, dtype=np.int32)
        self._positions = np.zeros(size, dtype=np.int32)
        self._counts = np.ones(size, dtype=np.int32)
        self._sequences = np.zeros(size, dtype=np.int32)
        self._wanted = np.zeros(size, dtype=np.int8)
        start = self._sequences.ctypes.data
        self._pointers = np.arange(size, dtype=np.uintp) * 4 + start
        kinds = dict(lib.llama_batch._fields_)
        batch = lib.llama_batch()
        for name, array in (
            ("token", self._tokens),
            ("pos", self._positions),
            ("n_seq_id", self._counts),
            ("seq_id", self._pointers),
            ("logits", self._wanted),
        ):
            setattr(batch, name, ctypes.cast(array.ctypes.data, kinds[name]))
        self._batch = batch

    def decode(self, pieces: Sequence[tuple[int, int, Sequence[int], bool]]) -> int:
        """Compute one batch; return llama.cpp's code: 0 fine, 1 no room, 2 aborted, below 0 an error.

        Args:
            pieces: Per sequence its id, the position of its first token, its tokens, and whether the logits after
                the last of them are wanted.
        """
        at = 0
        for sequence, position, tokens, wanted in pieces:
            end = at + len(tokens)
            self._tokens[at:end] = tokens
            self._positions[at:end] = np.arange(position, position + len(tokens))
            self._sequences[at:end] = sequence
            self._wanted[at:end] = 0
            self._wanted[end - 1] = wanted
            at = end
        self._batch.n_tokens = at
        return int(self._lib.llama_decode(self._handle, self._batch))

    def logits(self, index: int) -> Any:
        """Return the logits after the token at ``index`` of the last batch: float32, the vocabulary's size, a view."""
        pointer = self._lib.llama_get_logits_ith(self._handle, index)
        return np.ctypeslib.as_array(pointer, shape=(self._vocabulary,))

    def forget(self, sequence: int, start: int = 0) -> None:
        """Drop a sequence from a position on."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let a sequence share the first ``length`` tokens of another."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, 0, length)

    def use_adapter(self, handle: Any) -> None:
        """Switch to one adapter, or to none."""
        if handle is self._adapter:
            return
        lib = self._lib
        if handle is None:
            lib.llama_set_adapters_lora(self._handle, None, 0, None)
        else:
            adapters = (lib.llama_adapter_lora_p_ctypes * 1)(handle)
            lib.llama_set_adapters_lora(self._handle, adapters, 1, (ctypes.c_float * 1)(1.0))
        self._adapter = handle

    def close(self) -> None:
        """Free it. Idempotent; before the model is closed."""
        handle, self._handle = self._handle, None
        if handle:
            self._lib.llama_free(handle)
