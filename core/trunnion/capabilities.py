"""Say what an engine can do, in three values, and hold requests to it.

*Features* are the request's fields, dotted: ``sampling.seed``, ``output_format.regex``, ``media.image``, ``adapter``.
*Yes*: sent. *No*: refused before it reaches the engine, naming the field. *Unknown*: sent, and the engine's refusal
is mapped to the same error. A feature that a plugin never classified is *no*. Nothing is silently dropped.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import Final, Literal

from .errors import UnsupportedFeature
from .requests import GenerateRequest, PromptKind, SamplingParams


class Support(enum.StrEnum):
    """Tell whether a feature is supported."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


SAMPLING_FEATURES: Final = tuple(f"sampling.{name}" for name in SamplingParams.__dataclass_fields__)
OUTPUT_FORMATS: Final = tuple(
    f"output_format.{kind}" for kind in ("json_object", "json_schema", "regex", "choice", "grammar")
)
MEDIA_FEATURES: Final = ("media.image", "media.audio", "media.video")
REQUEST_FEATURES: Final = (
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "detokenize",
    "adapter",
    "priority",
    "session",
    "tenant",
    "cache_salt",
    "trace",
    "handoff",
)
FEATURES: Final = tuple(sorted((*SAMPLING_FEATURES, *OUTPUT_FORMATS, *MEDIA_FEATURES, *REQUEST_FEATURES)))
"""Every feature a plugin classifies."""

HINTS: Final = frozenset({"session", "tenant", "trace", "detokenize"})
"""Features that inform others and change no output: an engine that says *no* to one is sent the request without
refusal (``tenant`` is read by hooks, ``session`` by routers, ``trace`` by tracers)."""

PROTOCOLS: Final = (
    "embeds/1",
    "scores/1",
    "classifies/1",
    "transcribes/1",
    "hot_adapters/1",
    "sleeps/1",
    "resets_cache/1",
    "reports_load/1",
    "emits_kv_events/1",
    "probes_health/1",
    "relays/1",
)
"""The optional protocols of :mod:`trunnion.engine`, by versioned name."""

_DEFAULT = SamplingParams()
_SAMPLING: Final = tuple(SamplingParams.__dataclass_fields__)
_sampling_values = attrgetter(*_SAMPLING)
_DEFAULT_VALUES: Final = _sampling_values(_DEFAULT)
_NEUTRAL: Final[dict[str, float]] = {
    "top_p": 1,
    "min_p": 0,
    "min_tokens": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
}
"""Values that ask for nothing: many clients always send them, and an engine without the feature can serve them."""
_NEUTRAL_VALUES: Final = tuple(
    _NEUTRAL.get(name, default) for name, default in zip(_SAMPLING, _DEFAULT_VALUES, strict=True)
)
_request_values = attrgetter(
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "adapter",
    "priority",
    "cache_salt",
    "handoff",
    "output_format",
    "media",
    "extra",
)
_EMPTY_REQUEST: Final = ((), None, None, None, 0, None, None, None, (), None)


def sampling_features(sampling: SamplingParams) -> list[str]:
    """List the sampling features that ask for something, in the order of the fields."""
    values = _sampling_values(sampling)
    if values == _DEFAULT_VALUES:
        return []
    fields = zip(SAMPLING_FEATURES, values, _DEFAULT_VALUES, _NEUTRAL_VALUES, strict=True)
    return [name for name, value, default, neutral in fields if value not in (default, neutral)]


def used_features(request: GenerateRequest) -> list[str]:
    """List the features a request uses, hints left out; the hot path of a plain request costs about a microsecond."""
    used = sampling_features(request.sampling)
    if _request_values(request) == _EMPTY_REQUEST:
        return used
    if request.tools:
        used.append("tools")
    if request.tool_choice is not None:
        used.append("tool_choice")
    if request.parallel_tool_calls is False:  # several calls are the default everywhere
        used.append("parallel_tool_calls")
    if request.adapter is not None:
        used.append("adapter")
    if request.priority:
        used.append("priority")
    if request.cache_salt is not None:
        used.append("cache_salt")
    if request.handoff is not None:
        used.append("handoff")
    if request.output_format is not None:
        used.append(f"output_format.{request.output_format.kind}")
    used.extend(sorted({f"media.{part.type}" for part in request.media}))
    return used


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Say what an engine can do.

    Attributes:
        features: Support by feature name (see :data:`FEATURES`); one left out counts as *no*.
        prompts: Prompt kinds the engine accepts, the one it prefers first.
        media_prompts: The same for requests with media; empty means as ``prompts``.
        protocols: Optional protocols the engine implements, by versioned name.
        media_urls: Whether media given by URL reach the engine as URLs, because another machine fetches them under
            rules of its own. False: they are fetched before, under the pipeline's media settings, or refused; what
            runs in this process must not fetch what a request names.
        reasons: Why a feature is *unknown* or *no*, by feature name, for people. Of a protocol: why the model at hand
            lacks it; or, where it is declared all the same, what it depends on, so that it may be refused.
    """

    features: Mapping[str, Support] = field(default_factory=dict)
    prompts: tuple[PromptKind, ...] = ("token_ids", "text")
    media_prompts: tuple[PromptKind, ...] = ()
    protocols: frozenset[str] = frozenset()
    reasons: Mapping[str, str] = field(default_factory=dict)
    media_urls: bool = False

    def __post_init__(self) -> None:
        """Refuse misspelt features and protocols where they are declared."""
        wrong = [_misspelt(name, FEATURES) for name in sorted(set(self.features) - set(FEATURES))]
        wrong += [_misspelt(name, PROTOCOLS) for name in sorted(set(self.protocols) - set(PROTOCOLS))]
        if wrong:
            msg = f"unknown features or protocols in Capabilities: {', '.join(wrong)}; see trunnion.FEATURES"
            raise ValueError(msg)
        object.__setattr__(self, "features", MappingProxyType(dict(self.features)))
        object.__setattr__(self, "reasons", MappingProxyType(dict(self.reasons)))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the read-only mappings as plain ones."""
        state = (dict(self.features), self.prompts, self.media_prompts, self.protocols, dict(self.reasons))
        return _capabilities, (*state, self.media_urls)

    @classmethod
    def of(
        cls,
        *,
        yes: Iterable[str] = (),
        unknown: Iterable[str] = (),
        no: Iterable[str] = (),
        others: Literal["no"] | None = None,
        prompts: tuple[PromptKind, ...] = ("token_ids", "text"),
        media_prompts: tuple[PromptKind, ...] = (),
        protocols: Iterable[str] = (),
        reasons: Mapping[str, str] | None = None,
        media_urls: bool = False,
    ) -> Capabilities:
        """Build from three lists of feature names; ``sampling.*`` or ``output_format.*`` names a whole group.

        A feature named on its own beats a group it is in; of two groups or names, the more cautious list holds.
        ``others="no"`` says that what is in none of them is *no* on purpose. Without it such a feature is refused
        as well, but counts as not classified, which the conformance kit reports.
        """
        if others not in (None, "no"):
            raise ValueError(f'others may be "no" or left out, not {others!r}; list what is yes or unknown')
        groups: dict[str, Support] = {} if others is None else dict.fromkeys(FEATURES, Support.NO)
        alone: dict[str, Support] = {}
        for support, names in ((Support.YES, yes), (Support.UNKNOWN, unknown), (Support.NO, no)):
            for name in names:
                if name.endswith(".*"):
                    members = [f for f in FEATURES if f.startswith(name[:-1])]
                    groups.update(dict.fromkeys(members or [name], support))  # an unknown group is refused below
                else:
                    alone[name] = support
        features = groups | alone
        return cls(
            features=features,
            prompts=prompts,
            media_prompts=media_prompts,
            protocols=frozenset(protocols),
            reasons=reasons or {},
            media_urls=media_urls,
        )

    def support(self, feature: str) -> Support:
        """Return the support of a feature; unclassified is *no*."""
        return self.features.get(feature, Support.NO)

    def narrowed(self, **support: Support) -> Capabilities:
        """Return a copy with some features lowered, for what ``start()`` found of the model at hand.

        Keys write the dot as two underscores: ``output_format__regex=Support.NO``.
        """
        features = dict(self.features)
        for key, value in support.items():
            features[key.replace("__", ".")] = value
        return Capabilities(
            features=features,
            prompts=self.prompts,
            media_prompts=self.media_prompts,
            protocols=self.protocols,
            reasons=self.reasons,
            media_urls=self.media_urls,
        )

    def prompts_for(self, request: GenerateRequest) -> tuple[PromptKind, ...]:
        """Return the accepted prompt kinds for this request, the preferred one first."""
        return self.media_prompts if request.media and self.media_prompts else self.prompts


def _misspelt(name: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name} (did you mean {near[0]!r}?)" if near else name


def _capabilities(*state: object) -> Capabilities:
    names = ("features", "prompts", "media_prompts", "protocols", "reasons", "media_urls")
    return Capabilities(**dict(zip(names, state, strict=True)))  # type: ignore[arg-type]


def check_features(used: Iterable[str], capabilities: Capabilities, *, engine: str, supplied: frozenset[str]) -> None:
    """Refuse the first feature that neither the engine nor a stage (``supplied``) can honour.

    Raises:
        UnsupportedFeature: ``param`` names the field.
    """
    features = capabilities.features
    for feature in used:
        if feature not in supplied and features.get(feature, Support.NO) is Support.NO:
            why = capabilities.reasons.get(feature)
            param = feature.removeprefix("sampling.")
            msg = f"engine {engine!r} does not support {param}" + (f": {why}" if why else "")
            msg += f"; leave {param} out, or choose an engine that has it (`trunnion engines --markdown`)"
            raise UnsupportedFeature(msg, param=param, details={"engine": engine, "feature": feature})


def check_extra(request: GenerateRequest, *, engine: str) -> None:
    """Refuse engine-specific fields that are keyed to another engine.

    Raises:
        UnsupportedFeature: ``extra`` holds a key that is not this engine's name.
    """
    for name in request.extra or ():
        if name != engine:
            msg = f"extra[{name!r}] is for engine {name!r}, but this request runs on {engine!r}; remove it"
            raise UnsupportedFeature(msg, param=f"extra.{name}", details={"engine": engine})
