"""State what an endpoint can do: OpenAI's own fields, and the extras that depend on what the endpoint is.

Three dialects resolve the extras. *openai*: no, refused here. *vllm*: yes. *other*: unknown, sent, and the endpoint's
refusal is mapped to the error that names the field.
"""

from __future__ import annotations

from typing import Final, Literal

from trunnion.capabilities import Capabilities, Support
from trunnion.requests import PromptKind

Dialect = Literal["openai", "vllm", "other"]
Api = Literal["auto", "chat", "completions"]

STANDARD: Final = (
    "sampling.temperature",
    "sampling.top_p",
    "sampling.max_tokens",
    "sampling.n",
    "sampling.stop",
    "sampling.seed",
    "sampling.presence_penalty",
    "sampling.frequency_penalty",
    "sampling.logit_bias",
    "sampling.logprobs",
    "output_format.json_object",
    "output_format.json_schema",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "adapter",
    "trace",
)
EXTRAS: Final = (
    "sampling.top_k",
    "sampling.min_p",
    "sampling.min_tokens",
    "sampling.stop_token_ids",
    "sampling.include_stop_str_in_output",
    "sampling.ignore_eos",
    "sampling.repetition_penalty",
    "sampling.prompt_logprobs",
    "sampling.skip_special_tokens",
    "output_format.regex",
    "output_format.choice",
    "output_format.grammar",
    "priority",
    "cache_salt",
    "media.video",
)
MEDIA: Final = ("media.image", "media.audio")

_JUDGING: Final = frozenset({"scores/1", "classifies/1"})
"""vLLM's ``/score`` and ``/classify``."""
_WHY: Final[dict[Dialect, str]] = {
    "openai": "no field of OpenAI's API; set dialect if the endpoint knows more",
    "vllm": "",
    "other": "no field of OpenAI's API; the endpoint is asked",
}
_PROMPTS: Final[dict[Api, tuple[PromptKind, ...]]] = {
    "auto": ("messages", "text", "token_ids"),
    "chat": ("messages",),
    "completions": ("text", "token_ids"),
}
_SUPPORT: Final[dict[Dialect, Support]] = {"openai": Support.NO, "vllm": Support.YES, "other": Support.UNKNOWN}


def capabilities(dialect: Dialect = "other", api: Api = "auto") -> Capabilities:
    """Return what is known of an endpoint of this dialect."""
    extras = dict.fromkeys(EXTRAS, _SUPPORT[dialect])
    features = {**dict.fromkeys(STANDARD, Support.YES), **dict.fromkeys(MEDIA, Support.UNKNOWN), **extras}
    if dialect == "vllm":
        features["media.video"] = features["priority"] = Support.UNKNOWN
    reasons = {name: _WHY[dialect] for name in EXTRAS if features[name] is not Support.YES}
    reasons.update(dict.fromkeys((*MEDIA, "media.video"), "depends on the model that is served"))
    if dialect == "vllm":
        reasons["priority"] = "the server honours it where it schedules by priority, and may ignore it elsewhere"
    if dialect == "openai":
        reasons["media.video"] = _WHY["openai"]
    if api == "completions":
        for name in ("tools", "tool_choice", "parallel_tool_calls", *MEDIA, "media.video"):
            features[name] = Support.NO
            reasons[name] = "the completions API takes no messages"
    features["handoff"] = Support.NO
    reasons["handoff"] = "HTTP carries no state of an engine"
    features.update(dict.fromkeys(("detokenize", "session", "tenant"), Support.NO))
    protocols = {"embeds/1", "transcribes/1", "relays/1", "reports_load/1", "probes_health/1"}
    reasons["transcribes/1"] = "depends on the endpoint and its model; it is asked"
    if dialect == "openai":
        reasons.update(dict.fromkeys(_JUDGING, "no part of OpenAI's API"))
    else:
        protocols |= _JUDGING
        reasons.update(dict.fromkeys(_JUDGING, "depends on the endpoint and its model; it is asked"))
    return Capabilities(
        features=features,
        prompts=_PROMPTS[api],
        media_prompts=("messages",) if api != "completions" else (),
        protocols=frozenset(protocols),
        reasons=reasons,
        media_urls=True,  # the endpoint fetches them
    )


UPPER_BOUND: Final = capabilities()
