"""Define the engine: three verbs that never grow, and optional protocols for all else.

An engine belongs to the event loop that awaited :meth:`Engine.start` and is used once: after it died or stopped, a
new one is built from its spec.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from .capabilities import Capabilities
from .events import GenerateEvent, Usage
from .requests import GenerateRequest, Prompt
from .startup import StartupStage


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerRef:
    """Point to the tokenizer of the model: a path or Hub name that transformers' AutoTokenizer loads."""

    path: str
    revision: str | None = None
    trust_remote_code: bool = False
    chat_template: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KVLayout:
    """Describe the KV cache blocks, for routers that follow KV events: tokens per block, hash name and seed."""

    block_size: int
    hash: str
    seed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Describe a started engine.

    Attributes:
        engine: The plugin's name.
        model: What was loaded (path or name).
        context_length: Prompt plus completion tokens that fit; None where unknown.
        tokenizer: Where the stages find the tokenizer; None where the engine keeps it to itself.
        concurrency: Useful number of requests in flight.
        capabilities: The plugin's, narrowed for the model at hand; left out, they are the plugin's as they stand.
        adapters: LoRA adapters loaded at start.
        data_parallel: Number of data-parallel ranks.
        kv_layout: For KV-aware routers.
        library: Name and version of what runs the model, such as "vllm 0.29.0".
        emits_text: Whether deltas carry text; if not, the pipeline makes it of the token ids.
        details: Further facts as JSON values.
        startup: What ``start()`` spent its time on, in order; part of ``Pipeline.startup``.
    """

    engine: str
    model: str
    context_length: int | None = None
    tokenizer: TokenizerRef | None = None
    concurrency: int = 1
    capabilities: Capabilities = field(default_factory=Capabilities)
    adapters: tuple[str, ...] = ()
    data_parallel: int = 1
    kv_layout: KVLayout | None = None
    library: str = ""
    emits_text: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)
    startup: tuple[StartupStage, ...] = ()


@runtime_checkable
class Engine(Protocol):
    """Run one model. The whole of what a plugin must write."""

    async def start(self) -> EngineInfo:
        """Load the model and return when ready to serve; on a started engine it returns the same again."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateEvent, None]:
        """Yield the deltas of one request, ending with the event that carries usage.

        Nothing is taken before the first ``__anext__``; refusals are raised there. Cancelling the consuming task
        and ``aclose()`` both abort the request and free its slot. Consumers use :func:`contextlib.aclosing` and
        never close from another task. Raises errors of :mod:`trunnion.errors` only.
        """
        ...

    async def stop(self, *, drain: float = 0.0) -> None:
        """Stop, after at most ``drain`` seconds for requests in flight. Idempotent; safe before ``start()``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """Give a snapshot of an engine's load; ``timestamp`` is ``time.monotonic()`` of the process that wrote it.

    ``steps`` grows while the engine works, so that a busy engine can be told from one that stands still; None where it
    is not counted.
    """

    running: int
    waiting: int
    timestamp: float
    kv_cache_usage: float | None = None
    capacity: int | None = None
    adapters: tuple[str, ...] = ()
    steps: int | None = None


@runtime_checkable
class ReportsLoad(Protocol):
    """Report load (``reports_load/1``)."""

    def load(self) -> LoadReport:
        """Return the latest snapshot without blocking; kept up by the engine's own step callback."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """Hold the vector of one prompt and what it cost."""

    vector: Sequence[float]
    usage: Usage


@runtime_checkable
class Embeds(Protocol):
    """Embed prompts (``embeds/1``)."""

    async def embed(
        self, prompts: Sequence[Prompt], *, dimensions: int | None = None, adapter: str | None = None
    ) -> list[Embedding]:
        """Return one embedding per prompt, in order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Hold how well one text answers the query, and what it cost: the query's tokens as often as they are read."""

    value: float
    usage: Usage


@runtime_checkable
class Scores(Protocol):
    """Score how well texts answer a query (``scores/1``)."""

    async def score(self, query: str, texts: Sequence[str]) -> Sequence[Score | float]:
        """Return one score per text, in order; higher is better. A bare number counts no tokens."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Classification:
    """Hold the probability of each label for one prompt, in the model's order, and what it cost."""

    probabilities: Mapping[str, float]
    usage: Usage

    @property
    def label(self) -> str:
        """Return the most probable label."""
        return max(self.probabilities, key=self.probabilities.__getitem__)


@runtime_checkable
class Classifies(Protocol):
    """Classify prompts (``classifies/1``)."""

    async def classify(self, prompts: Sequence[Prompt]) -> Sequence[Classification | Mapping[str, float]]:
        """Return the probability of each label, per prompt, in order. A bare mapping counts no tokens."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """Hold the text that is spoken in an audio file, and what it cost."""

    text: str
    usage: Usage


@runtime_checkable
class Transcribes(Protocol):
    """Transcribe audio (``transcribes/1``)."""

    async def transcribe(self, audio: bytes, *, mime_type: str, language: str | None = None) -> Transcription | str:
        """Return the text that is spoken in a file of this type; ``language`` is its ISO 639-1 code.

        A bare text counts no tokens.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterRef:
    """Name a LoRA adapter and say where its files lie."""

    name: str
    path: str


@runtime_checkable
class HotAdapters(Protocol):
    """Load and unload LoRA adapters while generating (``hot_adapters/1``)."""

    async def load_adapter(self, adapter: AdapterRef) -> None:
        """Load an adapter; idempotent for the same path."""
        ...

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter and free its slot. Raises :class:`AdapterNotFound`."""
        ...

    async def list_adapters(self) -> list[AdapterRef]:
        """Return what is loaded."""
        ...


@runtime_checkable
class Sleeps(Protocol):
    """Give memory back between bursts (``sleeps/1``)."""

    async def sleep(self, *, level: int = 1) -> None:
        """Offload the weights (1) or discard them (2)."""
        ...

    async def wake(self) -> None:
        """Bring the weights back."""
        ...


@runtime_checkable
class ResetsCache(Protocol):
    """Forget cached prefixes (``resets_cache/1``)."""

    async def reset_prefix_cache(self) -> bool:
        """Forget every cached prefix; False where requests in flight hold some, and then none is forgotten."""
        ...


@runtime_checkable
class EmitsKVEvents(Protocol):
    """Publish which KV blocks were stored and removed (``emits_kv_events/1``)."""

    def kv_events(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield events in order, each with a sequence number ``seq``.

        ``type`` is "stored" (``block_hashes``, ``parent_block_hash``, ``token_ids``, ``block_size``, ``adapter``),
        "removed" (``block_hashes``), "cleared", or "lost": events were missed for good, so that whoever follows must
        forget what it knows of that ``rank``. Numbers never fall, per data-parallel ``rank``; events that happened
        in one step share one.
        """
        ...


@runtime_checkable
class ProbesHealth(Protocol):
    """Check that the engine still makes progress (``probes_health/1``)."""

    async def check_health(self) -> None:
        """Return if healthy. Raises :class:`EngineDead` otherwise."""
        ...


@runtime_checkable
class Relays(Protocol):
    """Pass bodies in the wire format of what is behind the engine (``relays/1``)."""

    async def relay(self, body: Any, *, path: str, headers: Mapping[str, str] | None = None) -> Any:
        """Post a body as it is (JSON values) to ``path``, and return the answer's JSON values.

        An error status is raised as an error of :mod:`trunnion.errors`, whatever its body.
        """
        ...
