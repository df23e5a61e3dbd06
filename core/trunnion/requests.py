"""Define the request: one small, frozen value that every engine, stage and router reads.

Sampling parameters have OpenAI's names and meanings (https://platform.openai.com/docs/api-reference/chat), with the
extensions that vLLM's server made common. ``None`` always means *the engine's own default for this model*.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from operator import attrgetter
from typing import Any, ClassVar, Literal, TypedDict

from .errors import InvalidArgument
from .formats import OutputFormat

PromptKind = Literal["messages", "text", "token_ids"]
Delivery = Literal["delta", "final"]


class ChatMessage(TypedDict, total=False):
    """Hold one chat message in OpenAI's wire format."""

    role: str
    content: str | list[dict[str, Any]] | None
    name: str
    tool_calls: list[dict[str, Any]]
    tool_call_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MessagesPrompt:
    """Hold a conversation that a chat template, or the engine itself, turns into text.

    ``chat_template`` replaces the model's own template and is refused unless the template stage allows it;
    ``continue_final_message`` leaves the last assistant message open for the model to go on with.
    """

    kind: ClassVar[PromptKind] = "messages"
    messages: Sequence[ChatMessage]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPrompt:
    """Hold plain text. ``add_special_tokens`` lets the tokenizer add BOS; off for text that a template made."""

    kind: ClassVar[PromptKind] = "text"
    text: str
    add_special_tokens: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensPrompt:
    """Hold token ids of the model's own vocabulary; ``text`` is what they came from, where that is known."""

    kind: ClassVar[PromptKind] = "token_ids"
    token_ids: Sequence[int]
    text: str | None = None


Prompt = MessagesPrompt | TextPrompt | TokensPrompt
"""A prompt of one of the three kinds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPart:
    """Hold one image, audio or video beside the prompt, in the order of its placeholder.

    Exactly one of ``url`` and ``data`` (bytes, with ``mime_type``) is set.
    """

    type: Literal["image", "audio", "video"]
    url: str | None = None
    data: bytes | None = None
    mime_type: str | None = None


def _check(ok: bool, param: str, value: object, rule: str) -> None:  # noqa: FBT001
    if not ok:
        msg = f"{param} must be {rule}, not {value!r}"
        raise InvalidArgument(msg, param=param)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Say how tokens are drawn and when to stop. Units are tokens; ``None`` is the engine's default.

    ``stop`` also takes one string or a list, and ``stop_token_ids`` a list, as OpenAI's clients send them.
    ``max_tokens=None`` means up to the end of the context. ``logprobs`` is the number of alternatives to report
    beside the chosen token (0: the chosen token alone). Raises :class:`InvalidArgument` naming the field.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    skip_special_tokens: bool = True

    def __post_init__(self) -> None:
        """Check every range once, where the value is made."""
        if self.stop.__class__ is not tuple or self.stop_token_ids.__class__ is not tuple:
            stop: Any = self.stop
            object.__setattr__(self, "stop", (stop,) if isinstance(stop, str) else tuple(stop or ()))
            object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids or ()))
        try:
            self._check_ranges()
        except TypeError as error:
            raise self._wrong_type() from error

    def _wrong_type(self) -> InvalidArgument:
        """Name the field whose value cannot be compared with a number."""
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, Real):
                return InvalidArgument(f"{name} must be a number, not {value!r}", param=name)
        return InvalidArgument("sampling parameters must be numbers")

    def _check_ranges(self) -> None:
        t, p, m = self.temperature, self.top_p, self.max_tokens
        if t is not None:
            _check(t >= 0, "temperature", t, "0 or more")
        if p is not None:
            _check(0 < p <= 1, "top_p", p, "above 0 and at most 1")
        if m is not None:
            _check(m >= 1, "max_tokens", m, "1 or more")
        if self.n != 1:
            _check(self.n >= 1, "n", self.n, "1 or more")
        if self.min_tokens is not None:
            top = self.min_tokens if m is None else m
            _check(0 <= self.min_tokens <= top, "min_tokens", self.min_tokens, "between 0 and max_tokens")
        if self.min_p is not None:
            _check(0 <= self.min_p <= 1, "min_p", self.min_p, "between 0 and 1")
        if self.top_k is not None:
            _check(self.top_k >= -1, "top_k", self.top_k, "-1 (off), 0 (off) or more")
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if value is not None:
                _check(-2 <= value <= 2, name, value, "between -2 and 2")  # noqa: PLR2004 - OpenAI's range
        if self.repetition_penalty is not None:
            _check(self.repetition_penalty > 0, "repetition_penalty", self.repetition_penalty, "above 0")
        if self.logprobs is not None:
            _check(self.logprobs >= 0, "logprobs", self.logprobs, "0 or more")
        if self.stop:
            ok = all(isinstance(s, str) and s for s in self.stop)
            _check(ok, "stop", self.stop, "made of strings that are not empty")


_NUMBERS = (
    "temperature", "top_p", "top_k", "min_p", "max_tokens", "min_tokens", "n", "presence_penalty",
    "frequency_penalty", "repetition_penalty", "logprobs",
)  # fmt: skip
_DEFAULT_SAMPLING = SamplingParams()


def new_request_id(prefix: str = "req") -> str:
    """Return a fresh identifier such as ``req-9f1c...``, unique over processes."""
    return f"{prefix}-{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """Ask an engine for a completion.

    Attributes:
        prompt: One of the three prompt kinds.
        request_id: Unique among the requests in flight.
        media: Parts beside any prompt kind; they survive templating.
        tools: OpenAI's tool definitions. ``tool_choice`` is "auto", "none", "required" or a named function.
        output_format: What the output must look like (structured output); None for free text.
        delivery: "delta" for a stream, "final" for one event at the end; engines pick their cheap mode.
        detokenize: False lets the engine skip text and send token ids alone (the pipeline makes the text).
        model: The model's served name, for routers and gateways; an engine holds one model and ignores it.
        adapter: Name of a LoRA adapter; None for the base model.
        priority: Lower runs first, as in vLLM; 0 is normal.
        deadline: Seconds since the epoch (``time.time()``) after which the request fails; enforced by the pipeline.
        session: Conversation identifier for session affinity.
        tenant: Who asks, for limits and fairness.
        cache_salt: Keeps prefix caches of different tenants apart.
        trace: W3C trace context headers.
        handoff: Opaque state of a prefill engine for its decode engine.
        extra: What one engine alone understands, by engine name; that engine validates it.
        notes: What request hooks and stages leave for the stages after them, by plugin name; any values. No engine
            sees it, and no representation shows it.
    """

    prompt: Prompt
    request_id: str = field(default_factory=new_request_id)
    sampling: SamplingParams = _DEFAULT_SAMPLING
    media: tuple[MediaPart, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    output_format: OutputFormat | None = None
    delivery: Delivery = "delta"
    detokenize: bool = True
    model: str | None = None
    adapter: str | None = None
    priority: int = 0
    deadline: float | None = None
    session: str | None = None
    tenant: str | None = None
    cache_salt: str | None = None
    trace: Mapping[str, str] | None = None
    handoff: Mapping[str, Any] | None = None
    extra: Mapping[str, Mapping[str, Any]] | None = None
    notes: Mapping[str, Any] | None = field(default=None, repr=False)

    def with_(self, **changes: Any) -> GenerateRequest:
        """Return a copy with some fields replaced. Raises TypeError for a name that is no field.

        Two to three times as fast as :func:`dataclasses.replace`, which counts: stages call it for every row.
        """
        copy = object.__new__(GenerateRequest)
        for assign, value in zip(_SETTERS.values(), _values(self), strict=True):
            assign(copy, value)
        for name, value in changes.items():
            if name not in _SETTERS:
                raise TypeError(f"GenerateRequest has no field {name!r}")
            _SETTERS[name](copy, value)
        return copy

    def with_note(self, name: str, value: Any) -> GenerateRequest:
        """Return a copy with one more note, the others kept; a plugin writes under its own name."""
        return self.with_(notes={**(self.notes or {}), name: value})


_SETTERS = {name: getattr(GenerateRequest, name).__set__ for name in GenerateRequest.__dataclass_fields__}
_values = attrgetter(*_SETTERS)
