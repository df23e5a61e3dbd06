"""Turn bodies into sampling parameters and output formats."""

from __future__ import annotations

import json
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.formats import Choice, Grammar, JsonObject, JsonSchema, OutputFormat, Regex
from trunnion.requests import SamplingParams

from .requests import ChatBody, CompletionBody, GenerationBody, StreamOptions

_COMPLETION_TOKENS: Final = 16
"""What /v1/completions generates if ``max_tokens`` is left out: OpenAI's default."""
_MAX_BIAS: Final = 100.0
_SCALARS: Final = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "min_tokens",
    "n",
    "include_stop_str_in_output",
    "ignore_eos",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "skip_special_tokens",
)
_scalars = attrgetter(*_SCALARS)
_formats = attrgetter(
    "response_format", "structured_outputs", "guided_json", "guided_regex", "guided_choice", "guided_grammar"
)
_NO_FORMATS: Final = (None,) * 6
_NO_STREAM_OPTIONS: Final = StreamOptions()


def chat_sampling(body: ChatBody) -> SamplingParams:
    """Return the sampling parameters of a chat body. Raises :class:`InvalidArgument` naming the field."""
    max_tokens = body.max_tokens
    if body.max_completion_tokens is not None:
        if max_tokens is not None and max_tokens != body.max_completion_tokens:
            msg = "max_tokens and max_completion_tokens disagree; send max_completion_tokens alone"
            raise InvalidArgument(msg, param="max_tokens")
        max_tokens = body.max_completion_tokens
    logprobs = None
    if body.logprobs:
        logprobs = body.top_logprobs or 0
    elif body.top_logprobs:
        raise InvalidArgument("top_logprobs needs logprobs: true", param="top_logprobs")
    if logprobs is not None and logprobs < 0:
        raise InvalidArgument(f"top_logprobs must be 0 or more, not {logprobs}", param="top_logprobs")
    try:
        return _sampling(body, max_tokens, logprobs)
    except InvalidArgument as error:
        if error.param == "max_tokens" and body.max_completion_tokens is not None:
            error.param = "max_completion_tokens"
            error.message = error.message.replace("max_tokens", "max_completion_tokens", 1)
        raise


def completion_sampling(body: CompletionBody) -> SamplingParams:
    """Return the sampling parameters of a completions body. Raises :class:`InvalidArgument` naming the field."""
    if body.best_of is not None and body.best_of != (body.n or 1):
        msg = "best_of other than n is not supported; leave it out and choose among n completions"
        raise UnsupportedFeature(msg, param="best_of")
    if body.echo:
        raise UnsupportedFeature("echo is not supported; prepend the prompt yourself", param="echo")
    if body.suffix:
        raise UnsupportedFeature("suffix is not supported; put the suffix into the prompt", param="suffix")
    return _sampling(body, _COMPLETION_TOKENS if body.max_tokens is None else body.max_tokens, body.logprobs)


def _sampling(body: GenerationBody, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
    """Return the parameters, from the cache for most: clients say the same again and again."""
    scalars: tuple[Any, ...] = _scalars(body)
    stop = body.stop
    if isinstance(stop, list) or body.stop_token_ids or body.logit_bias:
        ids = tuple(body.stop_token_ids or ())
        bias = _logit_bias(body.logit_bias) if body.logit_bias else None
        return _make(max_tokens, logprobs, (stop,) if isinstance(stop, str) else tuple(stop or ()), ids, bias, *scalars)
    return _cached(max_tokens, logprobs, (stop,) if stop else (), (), None, *scalars)


def _make(
    max_tokens: int | None,
    logprobs: int | None,
    stop: tuple[str, ...],
    stop_token_ids: tuple[int, ...],
    logit_bias: dict[int, float] | None,
    *scalars: Any,
) -> SamplingParams:
    values = {name: value for name, value in zip(_SCALARS, scalars, strict=True) if value is not None}
    return SamplingParams(
        max_tokens=max_tokens,
        logprobs=logprobs,
        stop=stop,
        stop_token_ids=stop_token_ids,
        logit_bias=logit_bias,
        **values,
    )


_cached = lru_cache(maxsize=512)(_make)


def _logit_bias(bias: dict[str, float]) -> dict[int, float]:
    result: dict[int, float] = {}
    for key, value in bias.items():
        if not (key.isascii() and key.isdigit()):
            msg = f"logit_bias keys are token ids as decimal strings, not {key!r}"
            raise InvalidArgument(msg, param="logit_bias")
        if not -_MAX_BIAS <= value <= _MAX_BIAS:
            msg = f"logit_bias[{key!r}] must be between -100 and 100, not {value!r}"
            raise InvalidArgument(msg, param="logit_bias")
        result[int(key)] = value
    return result


def output_format(body: GenerationBody) -> OutputFormat | None:
    """Return the demanded output format; None for free text.

    Raises:
        InvalidArgument: More than one format is demanded, or one is incomplete.
    """
    if _formats(body) == _NO_FORMATS:
        return None
    found: list[tuple[str, OutputFormat]] = []
    if body.response_format is not None and body.response_format.type != "text":
        found.append(("response_format", _response_format(body)))
    if body.structured_outputs is not None:
        s = body.structured_outputs
        values = {"json": s.json, "regex": s.regex, "choice": s.choice, "grammar": s.grammar}
        demanded = [_constraint(f"structured_outputs.{k}", k, v) for k, v in values.items() if v is not None]
        if s.json_object:
            demanded.append(("structured_outputs.json_object", JsonObject()))
        if not demanded:
            msg = "structured_outputs needs one of json, regex, choice, grammar, json_object"
            raise InvalidArgument(msg, param="structured_outputs")
        found += demanded
    guided = {
        "json": body.guided_json,
        "regex": body.guided_regex,
        "choice": body.guided_choice,
        "grammar": body.guided_grammar,
    }
    found += [_constraint(f"guided_{k}", k, v) for k, v in guided.items() if v is not None]
    if len(found) > 1:
        names = " and ".join(name for name, _ in found)
        raise InvalidArgument(f"only one output format at a time; {names} are set", param=found[1][0])
    return found[0][1] if found else None


def _response_format(body: GenerationBody) -> OutputFormat:
    wanted = body.response_format
    if wanted is None or wanted.type == "json_object":
        return JsonObject()
    schema = wanted.json_schema
    if schema is None or schema.json_schema is None:
        param = "response_format.json_schema" + ("" if schema is None else ".schema")
        raise InvalidArgument(f"missing required parameter: {param}", param=param)
    return JsonSchema(schema=schema.json_schema, name=schema.name, strict=schema.strict is not False)


def _constraint(param: str, kind: str, value: Any) -> tuple[str, OutputFormat]:
    if kind == "regex":
        return param, Regex(pattern=value)
    if kind == "grammar":
        return param, Grammar(grammar=value)
    if kind == "choice":
        if not value:
            raise InvalidArgument(f"{param} must hold at least one string", param=param)
        return param, Choice(choices=tuple(value))
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise InvalidArgument(f"{param} is not valid JSON: {error}", param=param) from error
        if not isinstance(value, dict):
            raise InvalidArgument(f"{param} must be a JSON Schema object", param=param)
    return param, JsonSchema(schema=value)


def stream_options(body: GenerationBody) -> StreamOptions:
    """Return the stream options. Raises :class:`InvalidArgument` where they make no sense."""
    options = body.stream_options
    if options is None:
        return _NO_STREAM_OPTIONS
    if not body.stream:
        raise InvalidArgument("stream_options is only allowed with stream: true", param="stream_options")
    for name in ("continuous_usage_stats", "include_obfuscation"):
        if getattr(options, name):
            param = f"stream_options.{name}"
            raise UnsupportedFeature(f"{param} is not supported; leave it out", param=param)
    return options
