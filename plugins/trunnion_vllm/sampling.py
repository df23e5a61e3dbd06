"""Convert requests to vLLM's SamplingParams, once for all requests that share the same ones."""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.formats import Choice, Grammar, JsonObject, JsonSchema, OutputFormat, Regex
from trunnion.requests import GenerateRequest
from trunnion.requests import SamplingParams as Sampling

from . import _vllm

# Fields of the contract that bear vLLM's own name and meaning; None leaves the model's default.
_SAME: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "max_tokens",
    "min_tokens",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "logprobs",
    "prompt_logprobs",
)
EXTRA_FIELDS: Final = (
    "allowed_token_ids",
    "bad_words",
    "extra_args",
    "logprob_token_ids",
    "repetition_detection",
    "spaces_between_special_tokens",
    "stream_interval",
    "thinking_token_budget",
)
"""What ``request.extra["vllm"]`` may hold: SamplingParams fields that the contract has no word for."""

_CACHE_SIZE: Final = 256
_Identity = tuple[int, int, str, bool]


class SamplingConverter:
    """Convert requests to SamplingParams under the model's own defaults.

    A result is reused for every request that shares the sampling values, the delivery and ``detokenize``. That is
    safe: ``skip_clone`` makes vLLM take a shallow copy per request, and what it changes it replaces in the copy,
    all but adding the end-of-sequence ids to a set that is the same for all.
    """

    def __init__(self, defaults: Mapping[str, Any] | None = None, *, vocabulary: int | None = None) -> None:
        """Take the model's defaults, as ``ModelConfig.get_diff_sampling_param()`` returns them.

        ``vocabulary`` is its number of tokens, None if that is not to be checked.
        """
        self._defaults = dict(defaults or {})
        self._vocabulary = vocabulary
        # Rows of a batch share one frozen value, so its identity is the cheapest key; the value is kept beside the
        # result, so that its identity cannot pass to another. Requests from outside share equal values.
        self._by_identity: dict[_Identity, tuple[Sampling, OutputFormat | None, Any]] = {}
        self._by_value: dict[Hashable, Any] = {}

    def convert(self, request: GenerateRequest) -> Any:
        """Return SamplingParams for a request; shared between requests, so not to be changed.

        Raises:
            InvalidArgument: ``extra["vllm"]`` holds something unknown, or the output format is not valid.
            ValueError: vLLM refuses a value (to be mapped by the caller).
        """
        extra = request.extra.get("vllm") if request.extra else None
        if extra:
            return self._build(request, extra)
        sampling, output_format = request.sampling, request.output_format
        key = (id(sampling), id(output_format), request.delivery, request.detokenize)
        hit = self._by_identity.get(key)
        if hit is not None:
            return hit[2]
        params = self._share(request)
        if len(self._by_identity) >= _CACHE_SIZE:
            self._by_identity.clear()
        self._by_identity[key] = (sampling, output_format, params)
        return params

    def _share(self, request: GenerateRequest) -> Any:
        key = (request.sampling, request.output_format, request.delivery, request.detokenize)
        try:
            params = self._by_value.get(key)
        except TypeError:  # a mapping within: logit_bias, a JSON schema
            return self._build(request, {})
        if params is None:
            params = self._build(request, {})
            if len(self._by_value) >= _CACHE_SIZE:
                self._by_value.clear()
            self._by_value[key] = params
        return params

    def _build(self, request: GenerateRequest, extra: Mapping[str, Any]) -> Any:
        sampling = request.sampling
        self._check_stop_tokens(sampling.stop_token_ids)
        values = dict(self._defaults)
        for name in _SAME:
            value = getattr(sampling, name)
            if value is not None:
                values[name] = value
        if sampling.logit_bias:
            values["logit_bias"] = {int(token): float(bias) for token, bias in sampling.logit_bias.items()}
        if sampling.min_tokens is None and "max_tokens" in values and "min_tokens" in values:
            values["min_tokens"] = min(values["min_tokens"], values["max_tokens"])
        values.setdefault("max_tokens", None)  # up to the end of the context; vLLM's own default is 16
        values.update(_extra(extra))
        if request.output_format is not None:
            values["structured_outputs"] = structured_outputs(request.output_format)
        final = request.delivery == "final"
        return _vllm.SamplingParams(
            n=sampling.n,
            stop=list(sampling.stop),
            stop_token_ids=list(sampling.stop_token_ids),
            include_stop_str_in_output=sampling.include_stop_str_in_output,
            ignore_eos=sampling.ignore_eos,
            skip_special_tokens=sampling.skip_special_tokens,
            detokenize=needs_text(request),
            output_kind=_vllm.RequestOutputKind.FINAL_ONLY if final else _vllm.RequestOutputKind.DELTA,
            skip_clone=True,
            **values,
        )

    def _check_stop_tokens(self, given: Sequence[int]) -> None:
        """Refuse what is no token: before 0.29 vLLM takes it, and uses it as an index into the logits."""
        size = self._vocabulary
        wrong = [token for token in given if token < 0 or (size is not None and token >= size)]
        if wrong:
            known = "" if size is None else f"; the model's vocabulary has the ids 0 to {size - 1}"
            raise InvalidArgument(f"stop_token_ids has {wrong[0]}, which is no token{known}", param="stop_token_ids")


def needs_text(request: GenerateRequest) -> bool:
    """Tell whether vLLM must make text: asked for, or needed to find stop strings or to name tokens."""
    s = request.sampling
    return request.detokenize or bool(s.stop) or s.logprobs is not None or s.prompt_logprobs is not None


def _extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    for name in extra:
        if name not in EXTRA_FIELDS:
            near = difflib.get_close_matches(name, EXTRA_FIELDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(EXTRA_FIELDS)}"
            raise InvalidArgument(f"extra['vllm'] has no field {name!r}; {hint}", param=f"extra.vllm.{name}")
        if name not in _vllm.SAMPLING_FIELDS:
            message = f"vLLM {_vllm.VERSION} has no sampling parameter {name!r}; leave it out, or take a newer vLLM"
            raise UnsupportedFeature(message, param=f"extra.vllm.{name}")
    return dict(extra)


def structured_outputs(output_format: OutputFormat) -> Any:
    """Return vLLM's StructuredOutputsParams for an output format."""
    make = _vllm.StructuredOutputsParams
    match output_format:
        case JsonObject():
            return make(json_object=True)
        case JsonSchema(schema=schema):
            return make(json=dict(schema))
        case Regex(pattern=pattern):
            return make(regex=pattern)
        case Choice(choices=choices):
            return make(choice=list(choices))
        case Grammar(grammar=grammar):
            return make(grammar=grammar)
    raise UnsupportedFeature("vLLM has no such output format", param="output_format")
