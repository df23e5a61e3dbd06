"""Read the sampling dictionary of a row: OpenAI's and vLLM's names, values as JSON, Arrow or NumPy hold them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .errors import InvalidArgument
from .formats import Choice, Grammar, JsonObject, JsonSchema, OutputFormat, Regex
from .requests import SamplingParams

_FORMATS: Final = ("json", "regex", "choice", "grammar", "json_object")
_EXTRA_NAMES: Final = (
    "max_completion_tokens",
    "top_logprobs",
    "structured_outputs",
    "guided_decoding",
    "detokenize",
)
_SYNONYMS: Final = ({"max_tokens", "max_completion_tokens"}, {"structured_outputs", "guided_decoding"})
NAMES: Final = (*SamplingParams.__dataclass_fields__, *_EXTRA_NAMES)
"""Every key a sampling dictionary may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSampling:
    """Hold what one sampling dictionary says; ``output_format`` and ``detokenize`` belong to the request."""

    params: SamplingParams
    output_format: OutputFormat | None = None
    detokenize: bool = True


def plain(value: Any) -> Any:
    """Return a value with NumPy's and Arrow's scalars and arrays turned into Python's own, at any depth."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if hasattr(value, "as_py"):
        value = value.as_py()
    elif hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def merge_sampling(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults with what a row gives in their place; two names of one thing replace each other."""
    own = {key: value for key, value in given.items() if value is not None}
    hidden = {name for names in _SYNONYMS if own.keys() & names for name in names}
    return {**{key: value for key, value in defaults.items() if key not in hidden}, **own}


def parse_sampling(values: Mapping[str, Any], *, where: str = "sampling_params") -> RowSampling:
    """Turn plain values into sampling parameters; None counts as not given.

    Beside the fields of :class:`SamplingParams` it knows ``max_completion_tokens``, ``logprobs: true`` with
    ``top_logprobs``, ``structured_outputs`` or ``guided_decoding``, and ``detokenize``.

    Raises:
        InvalidArgument: ``param`` is ``where`` and the key, dotted.
    """
    given = {key: value for key, value in values.items() if value is not None}
    for key in given:
        if key not in NAMES:
            raise InvalidArgument(f"{where}.{key} is not a sampling parameter; {_hint(key)}", param=f"{where}.{key}")
    fields = {key: _CASTS[key](value, f"{where}.{key}") for key, value in given.items() if key in _CASTS}
    if "max_completion_tokens" in fields:
        limit = fields.pop("max_completion_tokens")
        if fields.setdefault("max_tokens", limit) != limit:
            raise InvalidArgument(
                f"{where}.max_tokens and max_completion_tokens disagree; give one", param=f"{where}.max_tokens"
            )
    _logprobs(fields, where)
    detokenize = fields.pop("detokenize", True)
    output_format = _structured(given, where)
    try:
        params = SamplingParams(**fields)
    except InvalidArgument as error:
        raise InvalidArgument(f"{where}.{error.message}", param=f"{where}.{error.param}") from error
    return RowSampling(params=params, output_format=output_format, detokenize=detokenize)


def _hint(key: object) -> str:
    near = difflib.get_close_matches(str(key), NAMES, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(NAMES)}"


def _wrong(where: str, rule: str, value: object) -> InvalidArgument:
    text = repr(value)
    short = text if len(text) <= 80 else f"{text[:77]}..."  # noqa: PLR2004 - a line's worth
    return InvalidArgument(f"{where} must be {rule}, not {short}", param=where)


def _float(value: object, where: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    raise _wrong(where, "a number", value)


def _int(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():  # a column of integers with nulls arrives as floats
        return int(value)
    raise _wrong(where, "an integer", value)


def _bool(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    raise _wrong(where, "true or false", value)


def _stop(value: object, where: str) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise _wrong(where, "a string or a list of strings", value)


def _ids(value: object, where: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise _wrong(where, "a list of token ids", value)
    return tuple(_int(item, f"{where}[{index}]") for index, item in enumerate(value))


def _bias(value: object, where: str) -> dict[int, float] | None:
    if not isinstance(value, dict):
        raise _wrong(where, "an object of token ids and numbers", value)
    bias = {}
    for key, amount in value.items():
        if amount is None:  # Arrow fills the keys of other rows with nulls
            continue
        if not str(key).isdecimal():
            raise _wrong(where, "an object whose keys are token ids", value)
        bias[int(key)] = _float(amount, f"{where}.{key}")
    return bias or None


def _logprob_count(value: object, where: str) -> int | bool:
    return value if isinstance(value, bool) else _int(value, where)


_FLOATS = ("temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
_INTEGERS = ("top_k", "max_tokens", "max_completion_tokens", "min_tokens", "n", "seed", "prompt_logprobs")
_BOOLEANS = ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "detokenize")
_CASTS: Final[dict[str, Callable[[Any, str], Any]]] = {
    **dict.fromkeys(_FLOATS, _float),
    **dict.fromkeys(_INTEGERS, _int),
    **dict.fromkeys(_BOOLEANS, _bool),
    "stop": _stop,
    "stop_token_ids": _ids,
    "logit_bias": _bias,
    "logprobs": _logprob_count,
    "top_logprobs": _int,
}


def _logprobs(fields: dict[str, Any], where: str) -> None:
    """Bring OpenAI's pair (``logprobs: true``, ``top_logprobs: 5``) into vLLM's one number."""
    logprobs, top = fields.get("logprobs"), fields.pop("top_logprobs", None)
    if isinstance(logprobs, bool):
        fields["logprobs"] = (top or 0) if logprobs else None
    if top and not logprobs:
        raise InvalidArgument(f"{where}.top_logprobs needs logprobs: true", param=f"{where}.top_logprobs")


def _structured(given: Mapping[str, Any], where: str) -> OutputFormat | None:
    found = [key for key in ("structured_outputs", "guided_decoding") if key in given]
    if not found:
        return None
    param = f"{where}.{found[0]}"
    value = given[found[0]]
    if not isinstance(value, dict):
        raise _wrong(param, f"an object with one of {', '.join(_FORMATS)}", value)
    demanded = {key: item for key, item in value.items() if item is not None and item is not False}
    if len(found) > 1 or len(demanded) != 1 or next(iter(demanded)) not in _FORMATS:
        raise InvalidArgument(f"{param} must have exactly one of {', '.join(_FORMATS)}", param=param)
    kind, item = next(iter(demanded.items()))
    return _format(kind, item, f"{param}.{kind}")


def _format(kind: str, value: Any, where: str) -> OutputFormat:
    if kind == "json_object":
        return JsonObject()
    if kind == "choice":
        choices = _stop(value, where)
        return Choice(choices=choices)
    if kind == "json":
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise InvalidArgument(f"{where} is not valid JSON: {error}", param=where) from error
        if not isinstance(value, dict):
            raise _wrong(where, "a JSON Schema", value)
        return JsonSchema(schema=value)
    if not isinstance(value, str):
        raise _wrong(where, "a string", value)
    return Regex(pattern=value) if kind == "regex" else Grammar(grammar=value)
