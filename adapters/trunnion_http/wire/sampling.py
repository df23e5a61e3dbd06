"""Turn bodies into sampling parameters and output formats."""

from __future__ import annotations

import json
from typing import Any, Final

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.formats import Choice, Grammar, JsonObject, JsonSchema, OutputFormat, Regex
from trunnion.requests import SamplingParams

from .requests import ChatBody, CompletionBody, GenerationBody, StreamOptions

_COMPLETION_TOKENS: Final = 16
"""What /v1/completions generates if ``max_tokens`` is left out: OpenAI's default."""
_MAX_BIAS: Final = 100.0
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
    stop = body.stop
    ids = body.stop_token_ids
    return SamplingParams(
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        max_tokens=max_tokens,
        min_tokens=body.min_tokens,
        n=1 if body.n is None else body.n,
        stop=() if not stop else (stop,) if isinstance(stop, str) else tuple(stop),
        stop_token_ids=() if ids is None else tuple(ids),
        include_stop_str_in_output=bool(body.include_stop_str_in_output),
        ignore_eos=bool(body.ignore_eos),
        seed=body.seed,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        repetition_penalty=body.repetition_penalty,
        logit_bias=None if not body.logit_bias else _logit_bias(body.logit_bias),
        logprobs=logprobs,
        skip_special_tokens=body.skip_special_tokens is not False,
    )


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
