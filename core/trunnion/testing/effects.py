"""Show, for each field of a request, that it has its effect. One table, whatever the engine and its model."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest

from trunnion.completion import Completion
from trunnion.errors import UnsupportedFeature
from trunnion.formats import Choice, Grammar, JsonObject, JsonSchema, Regex
from trunnion.requests import GenerateRequest

from . import advice
from .asking import Ask
from .examples import CITY, TOOL

Effect = Callable[[Ask], None]
_TRIES: Final = 3
_TABLE: dict[str, Effect] = {}
EFFECTS: Final[Mapping[str, Effect]] = _TABLE
"""The test of each feature's effect."""


def effect(*features: str) -> Callable[[Effect], Effect]:
    """Register a test of the effect of these features."""

    def keep(function: Effect) -> Effect:
        _TABLE.update(dict.fromkeys(features, function))
        return function

    return keep


def _hot(ask: Ask, **fields: Any) -> dict[str, Any]:
    return {**ask.long(), "max_tokens": 12, "temperature": 2.0, **fields}


@effect("sampling.max_tokens")
def _max_tokens(ask: Ask) -> None:
    answer = ask(**{**ask.long(), "max_tokens": 3})
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (3, "length")


def _own_length(ask: Ask) -> int:
    """Return the tokens of an answer that ends by itself."""
    context = ask.mount.info.context_length or 1024
    answer = ask(max_tokens=min(400, context // 2))
    assert answer.usage is not None
    assert answer.choices[0].finish_reason == "stop", f"the answer does not end by itself; {advice.PROMPT}"
    return answer.usage.completion_tokens


@effect("sampling.min_tokens")
def _min_tokens(ask: Ask) -> None:
    length = _own_length(ask)
    answer = ask(min_tokens=length + 8, max_tokens=length + 40)
    assert answer.usage is not None
    assert answer.usage.completion_tokens >= length + 8


@effect("sampling.ignore_eos")
def _ignore_eos(ask: Ask) -> None:
    length = _own_length(ask)
    answer = ask(ignore_eos=True, max_tokens=length + 8)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == length + 8


@effect("sampling.n")
def _n(ask: Ask) -> None:
    answer = ask(n=3, **ask.only_if("sampling.temperature", temperature=1.0))
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.text or choice.token_ids for choice in answer.choices)
    if not ask.accepts("sampling.temperature"):
        return
    seeds: list[int | None] = [None, *([7, 8, 9] if ask.accepts("sampling.seed") else [])]
    for group in (seeds[:1] * _TRIES, seeds[1:]):
        answers = (ask(**_hot(ask, n=3, max_tokens=24, seed=seed)) for seed in group)
        alike = group and not any(_choices_differ(answer) for answer in answers)
        where = "without a seed" if group[:1] == [None] else "with a seed"
        assert not alike, f"at temperature 2, {where}, three choices are one and the same: each must draw for itself"


def _choices_differ(answer: Completion) -> bool:
    return len({choice.text or tuple(choice.token_ids) for choice in answer.choices}) > 1


@effect("sampling.seed")
def _seed(ask: Ask) -> None:
    one, again, *others = ask.texts(*(_hot(ask, seed=seed) for seed in (1, 1, 2, 3, 4)))
    assert one == again, "the same seed gives another answer"
    assert len({one, *others}) > 1, "four seeds give one and the same answer: the seed is not used"


@effect("sampling.temperature")
def _temperature(ask: Ask) -> None:
    seeds = [ask.only_if("sampling.seed", seed=seed) for seed in range(4)]
    assert len(set(ask.texts(*({"temperature": 0.0, **seed} for seed in seeds)))) == 1
    assert len(set(ask.texts(*({"temperature": 2.0, **seed} for seed in seeds)))) > 1


def _narrowed_to_the_best(ask: Ask, **narrow: Any) -> None:
    greedy, *hot = ask.texts({}, *({"temperature": 2.0, **narrow} for _ in range(3)))
    assert set(hot) == {greedy}


@effect("sampling.top_p")
def _top_p(ask: Ask) -> None:
    _narrowed_to_the_best(ask, top_p=1e-6)


@effect("sampling.top_k")
def _top_k(ask: Ask) -> None:
    _narrowed_to_the_best(ask, top_k=1)


@effect("sampling.min_p")
def _min_p(ask: Ask) -> None:
    _narrowed_to_the_best(ask, min_p=1.0)


def _split(ask: Ask) -> tuple[str, str]:
    """Return a greedy answer and a piece of it that begins in one token and ends in the next."""
    events = ask.events()
    pieces = [choice.text for event in events for choice in event.choices if choice.text]
    text = ask().text
    assert len(text) >= 8, f"the answer is too short to be stopped; {advice.LONG_PROMPT}"
    end = 0
    for piece in pieces[:-1]:
        end += len(piece)
        stop = text[end - 2 : end + 2]
        if end >= 4 and len(stop) == 4 and stop.strip() == stop and text.index(stop) == end - 2:
            return text, stop
    middle = len(text) // 2
    return text, text[middle : middle + 3]


@effect("sampling.stop")
def _stop(ask: Ask) -> None:
    text, stop = _split(ask)
    for delivery in ("delta", "final"):
        answer = ask(stop=(stop, "never said by anybody"), delivery=delivery)
        assert answer.text == text[: text.index(stop)]
        assert answer.choices[0].finish_reason == "stop"
        assert answer.choices[0].stop_reason in (stop, None)


@effect("sampling.include_stop_str_in_output")
def _include_stop(ask: Ask) -> None:
    text, stop = _split(ask)
    assert ask(stop=(stop,), include_stop_str_in_output=True).text == text[: text.index(stop) + len(stop)]


@effect("sampling.stop_token_ids")
def _stop_token_ids(ask: Ask) -> None:
    first = ask()
    tokens = first.choices[0].token_ids or ask.token_ids(first.text)
    place = max(index for index in range(1, 6) if tokens.index(tokens[index]) == index)
    answer = ask(stop_token_ids=(tokens[place],))
    assert answer.usage is not None
    assert answer.usage.completion_tokens <= place + 1
    assert answer.choices[0].finish_reason == "stop"


def _changes_the_text(ask: Ask, **fields: Any) -> None:
    plain = {**ask.long(), "max_tokens": 120}
    assert ask(**plain, **fields).text != ask(**plain).text


@effect("sampling.presence_penalty")
def _presence_penalty(ask: Ask) -> None:
    _changes_the_text(ask, presence_penalty=2.0)


@effect("sampling.frequency_penalty")
def _frequency_penalty(ask: Ask) -> None:
    _changes_the_text(ask, frequency_penalty=2.0)


@effect("sampling.repetition_penalty")
def _repetition_penalty(ask: Ask) -> None:
    _changes_the_text(ask, repetition_penalty=5.0)


@effect("sampling.logit_bias")
def _logit_bias(ask: Ask) -> None:
    first = ask()
    token = (first.choices[0].token_ids or ask.token_ids(first.text))[0]
    without = ask(logit_bias={token: -100.0})
    if without.choices[0].token_ids:
        assert token not in without.choices[0].token_ids
    assert without.text != first.text


@effect("sampling.logprobs")
def _logprobs(ask: Ask) -> None:
    answer = ask(**{**ask.long(), "max_tokens": 5, "logprobs": 2})
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None, "answered without logprobs: make them, or refuse"
    assert len(logprobs) == 5
    for entry in logprobs:
        assert entry.logprob <= 0
        assert len(entry.top) == 2
        assert entry.top[0].logprob >= entry.top[1].logprob
        assert (entry.top[0].token, entry.top[0].logprob) == (entry.token, entry.logprob)  # greedy takes the likeliest
    assert ask(max_tokens=5).choices[0].logprobs is None


@effect("sampling.prompt_logprobs")
def _prompt_logprobs(ask: Ask) -> None:
    answer = ask(prompt_logprobs=1, max_tokens=1)
    assert answer.usage is not None
    assert answer.prompt_logprobs is not None, "answered without prompt_logprobs: make them, or refuse"
    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens
    assert answer.prompt_logprobs[0] is None
    second = answer.prompt_logprobs[1]
    assert second is not None
    assert second.logprob <= 0


@effect("sampling.skip_special_tokens")
def _skip_special_tokens(ask: Ask) -> None:
    """The end of the turn is a special token: it shows where an answer runs on past it, if they are not skipped."""
    fields = {**ask.long(), "max_tokens": _own_length(ask) + 4}
    assert len(ask(**fields, skip_special_tokens=False).text) > len(ask(**fields).text)


def _room(ask: Ask) -> int:
    return min(200, (ask.mount.info.context_length or 1024) // 3)


@effect("output_format.json_object")
def _json_object(ask: Ask) -> None:
    _json(ask, JsonObject())


def _json(ask: Ask, wanted: JsonObject | JsonSchema) -> dict[str, Any] | None:
    """Return the object that was answered; None for one that was cut off: a model may fill what is left with spaces."""
    completion = ask(output_format=wanted, max_tokens=_room(ask))
    if completion.choices[0].finish_reason == "length":
        assert completion.text.lstrip().startswith("{"), f"no JSON object begins with {completion.text[:40]!r}"
        return None
    answer = json.loads(completion.text)
    assert isinstance(answer, dict)
    return answer


@effect("output_format.json_schema")
def _json_schema(ask: Ask) -> None:
    answer = _json(ask, JsonSchema(schema=CITY))
    if answer is not None:
        assert isinstance(answer["city"], str)
        assert len(answer["city"]) <= 12


@effect("output_format.regex")
def _regex(ask: Ask) -> None:
    assert re.fullmatch(r"[A-C]{3}-\d{2}", ask(output_format=Regex(pattern=r"[A-C]{3}-\d{2}")).text)


@effect("output_format.choice")
def _choice(ask: Ask) -> None:
    assert ask(output_format=Choice(choices=("yes indeed", "no way"))).text in ("yes indeed", "no way")


@effect("output_format.grammar")
def _grammar(ask: Ask) -> None:
    assert ask(output_format=Grammar(grammar='root ::= "<" ("a" | "b") ">"')).text in ("<a>", "<b>")


@effect("tools")
def _tools(ask: Ask) -> None:
    """The definitions reach the model's prompt, as a template's work or the engine's, or are called."""
    without, offered = ask(), ask(tools=(TOOL,))
    assert without.usage is not None
    assert offered.usage is not None
    calls = offered.choices[0].tool_calls
    assert calls or offered.usage.prompt_tokens > without.usage.prompt_tokens
    assert {call.name for call in calls} <= {"get_weather"}


@effect("tool_choice")
def _tool_choice(ask: Ask) -> None:
    """A named function is called whatever the model would say, or the demand is refused; "none" calls nothing."""
    assert not ask(tools=(TOOL,), tool_choice="none").choices[0].tool_calls
    named = {"type": "function", "function": {"name": "get_weather"}}
    try:
        calls = ask(tools=(TOOL,), tool_choice=named, max_tokens=_room(ask)).choices[0].tool_calls
    except UnsupportedFeature:
        return  # nothing here forces a model to call
    assert [call.name for call in calls] == ["get_weather"]
    assert isinstance(json.loads(calls[0].arguments), dict)


@effect("parallel_tool_calls")
def _parallel_tool_calls(ask: Ask) -> None:
    assert len(ask(tools=(TOOL,), parallel_tool_calls=False).choices[0].tool_calls) <= 1


@effect("adapter")
def _adapter(ask: Ask) -> None:
    names = ask.adapters
    if not names:
        ask.lacking(f"adapter is declared yes; {advice.ADAPTERS}")
    plain, *adapted = ask.texts({}, *({"adapter": name} for name in names))
    assert all(adapted)
    assert set(adapted) != {plain}, "no adapter changes the answer"


@effect("priority")
def _priority(ask: Ask) -> None:
    """Where one request runs at a time, the one that matters more overtakes those that wait."""
    mount, ended = ask.mount, list[int]()
    first = ask.prepared(**{**ask.long(), "max_tokens": 60})
    waiting = [ask.prepared(priority=priority, **{**ask.long(), "max_tokens": 4}) for priority in (5, 5, -5)]

    async def run(request: GenerateRequest) -> None:
        async for event in mount.engine.generate(request):
            if event.usage is not None:
                ended.append(request.priority)

    async def together() -> None:
        ahead = asyncio.ensure_future(run(first))
        await asyncio.sleep(0.05)
        await asyncio.gather(ahead, *map(run, waiting))

    mount.run(together())
    assert ended == [0, -5, 5, 5], (
        f"beside one that runs, those of priority 5, 5, -5 waited; they ended in the order {ended[1:]}, "
        "and the lower number goes first"
    )


@effect("cache_salt")
def _cache_salt(ask: Ask) -> None:
    long = ask.repeated()

    def cached(**fields: Any) -> int:
        usage = ask(long, max_tokens=1, **fields).usage
        assert usage is not None
        return usage.cached_tokens

    cached()
    if cached() == 0:
        pytest.fail("a prompt that was seen before is not cached, so that a salt has no effect; declare cache_salt no")
    assert cached(cache_salt="mine") == 0
