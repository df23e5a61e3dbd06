"""Show, for each field of a request, that it has its effect. One table, whatever the engine."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from trunnion import (
    Choice,
    Completion,
    GenerateRequest,
    Grammar,
    JsonObject,
    JsonSchema,
    MediaPart,
    MessagesPrompt,
    Regex,
    SamplingParams,
    SyncPipeline,
)
from trunnion_demo import PROMPTS, model_path

PLAIN = next(prompt for prompt in PROMPTS if not prompt.tools and len(prompt.expected) > 30 and prompt.adapted)
CALLING = next(prompt for prompt in PROMPTS if prompt.tools and "<tool_call>" in prompt.expected)
TOOLS = {"messages": CALLING.messages, "tools": CALLING.tools, "max_tokens": CALLING.max_tokens}
HOT = {"temperature": 2.0, "max_tokens": 12, "ignore_eos": True}
LONG = [{"role": "user", "content": "Write a haiku about the sea. " * 40}]
CITY = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}
EFFECTS: dict[str, Callable[[Ask], None]] = {}


class Ask:
    """Ask one started pipeline; fields of the sampling parameters and of the request by name."""

    def __init__(self, pipeline: SyncPipeline) -> None:
        self.pipeline = pipeline
        self.supports = pipeline.pipeline.info.capabilities.support

    def __call__(self, messages: Any = PLAIN.messages, **fields: Any) -> Completion:
        return self.pipeline.complete([request(messages, **fields)])[0]

    def many(self, *several: dict[str, Any]) -> list[str]:
        """Return the texts of requests that run side by side."""
        asked = [request(**{"messages": PLAIN.messages, **fields}) for fields in several]
        return [completion.text for completion in self.pipeline.complete(asked)]

    def only_if(self, feature: str, **fields: Any) -> dict[str, Any]:
        """Return fields that make an effect plainer, where the engine has their feature."""
        return fields if self.supports(feature) != "no" else {}


def request(messages: Any = PLAIN.messages, **fields: Any) -> GenerateRequest:
    sampling = {"temperature": 0.0, "max_tokens": PLAIN.max_tokens}
    sampling |= {name: fields.pop(name) for name in SamplingParams.__dataclass_fields__ if name in fields}
    prompt = MessagesPrompt(messages=tuple(messages))
    return GenerateRequest(prompt=prompt, sampling=SamplingParams(**sampling), **fields)


def effect(feature: str) -> Callable[[Callable[[Ask], None]], Callable[[Ask], None]]:
    def keep(function: Callable[[Ask], None]) -> Callable[[Ask], None]:
        EFFECTS[feature] = function
        return function

    return keep


def longer(ask: Ask) -> dict[str, Any]:
    return ask.only_if("sampling.ignore_eos", ignore_eos=True)


@effect("sampling.max_tokens")
def _(ask: Ask) -> None:
    answer = ask(max_tokens=3)
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (3, "length")


@effect("sampling.min_tokens")
def _(ask: Ask) -> None:
    length = ask(max_tokens=200).usage.completion_tokens
    assert length < 100
    assert ask(min_tokens=length + 8, max_tokens=200).usage.completion_tokens >= length + 8


@effect("sampling.ignore_eos")
def _(ask: Ask) -> None:
    length = ask(max_tokens=200).usage.completion_tokens
    assert ask(ignore_eos=True, max_tokens=length + 8).usage.completion_tokens == length + 8 < 200


@effect("sampling.n")
def _(ask: Ask) -> None:
    answer = ask(n=3, temperature=1.0)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.text for choice in answer.choices)


@effect("sampling.seed")
def _(ask: Ask) -> None:
    hot = {**HOT, **longer(ask)}
    one, again, *others = ask.many(*({**hot, "seed": seed} for seed in (1, 1, 2, 3, 4)))
    assert one == again
    assert len({one, *others}) > 1


@effect("sampling.temperature")
def _(ask: Ask) -> None:
    seeds = [ask.only_if("sampling.seed", seed=seed) for seed in range(4)]
    assert len(set(ask.many(*({"temperature": 0.0, **seed} for seed in seeds)))) == 1
    assert len(set(ask.many(*({"temperature": 2.0, **seed} for seed in seeds)))) > 1


def narrowed_to_the_best(ask: Ask, **narrow: Any) -> None:
    greedy, *hot = ask.many({}, *({"temperature": 2.0, **narrow} for _ in range(3)))
    assert set(hot) == {greedy}


@effect("sampling.top_p")
def _(ask: Ask) -> None:
    narrowed_to_the_best(ask, top_p=1e-6)


@effect("sampling.top_k")
def _(ask: Ask) -> None:
    narrowed_to_the_best(ask, top_k=1)


@effect("sampling.min_p")
def _(ask: Ask) -> None:
    narrowed_to_the_best(ask, min_p=1.0)


@effect("sampling.stop")
def _(ask: Ask) -> None:
    text = ask().text
    word = text.split()[2]
    answer = ask(stop=(word,))
    assert answer.text == text[: text.index(word)]
    assert answer.choices[0].finish_reason == "stop"


@effect("sampling.include_stop_str_in_output")
def _(ask: Ask) -> None:
    text = ask().text
    word = text.split()[2]
    assert ask(stop=(word,), include_stop_str_in_output=True).text == text[: text.index(word) + len(word)]


def ids_of(text: str) -> list[int]:
    """Return the tokens of an answer that came without them, as over HTTP."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path())(text, add_special_tokens=False).input_ids


@effect("sampling.stop_token_ids")
def _(ask: Ask) -> None:
    whole = ask()
    tokens = whole.choices[0].token_ids or ids_of(whole.text)
    answer = ask(stop_token_ids=(tokens[3],))
    assert answer.usage.completion_tokens <= 4
    assert answer.choices[0].finish_reason == "stop"


def changes_the_text(ask: Ask, **fields: Any) -> None:
    fields = {"max_tokens": 120, **longer(ask), **fields}
    plain = {name: value for name, value in fields.items() if name in ("max_tokens", "ignore_eos")}
    assert ask(**fields).text != ask(**plain).text


@effect("sampling.presence_penalty")
def _(ask: Ask) -> None:
    changes_the_text(ask, presence_penalty=2.0)


@effect("sampling.frequency_penalty")
def _(ask: Ask) -> None:
    changes_the_text(ask, frequency_penalty=2.0)


@effect("sampling.repetition_penalty")
def _(ask: Ask) -> None:
    changes_the_text(ask, repetition_penalty=5.0)


@effect("sampling.logit_bias")
def _(ask: Ask) -> None:
    text = ask().text
    assert not ask(logit_bias={ids_of(text)[0]: -100.0}).text.startswith(text[:4])


@effect("sampling.logprobs")
def _(ask: Ask) -> None:
    answer = ask(logprobs=2, max_tokens=5)
    logprobs = answer.choices[0].logprobs
    assert len(logprobs) == 5
    for entry in logprobs:
        assert entry.logprob <= 0
        assert len(entry.top) == 2
        assert entry.top[0].logprob >= entry.top[1].logprob
        assert (entry.top[0].token_id, entry.top[0].logprob) == (entry.token_id, entry.logprob)
    assert ask(max_tokens=5).choices[0].logprobs is None


@effect("sampling.prompt_logprobs")
def _(ask: Ask) -> None:
    answer = ask(prompt_logprobs=1, max_tokens=1)
    assert len(answer.prompt_logprobs) == answer.usage.prompt_tokens
    assert answer.prompt_logprobs[0] is None
    assert answer.prompt_logprobs[1].logprob <= 0


@effect("sampling.skip_special_tokens")
def _(ask: Ask) -> None:
    fields = {"max_tokens": 60, **longer(ask)}
    assert "<|" not in ask(**fields).text
    assert "<|" in ask(**fields, skip_special_tokens=False).text


@effect("output_format.json_object")
def _(ask: Ask) -> None:
    assert isinstance(json.loads(ask(output_format=JsonObject(), max_tokens=200).text), dict)


@effect("output_format.json_schema")
def _(ask: Ask) -> None:
    answer = json.loads(ask(output_format=JsonSchema(schema=CITY), max_tokens=200).text)
    assert isinstance(answer["city"], str)


@effect("output_format.regex")
def _(ask: Ask) -> None:
    assert re.fullmatch(r"[A-C]{3}-\d{2}", ask(output_format=Regex(pattern=r"[A-C]{3}-\d{2}")).text)


@effect("output_format.choice")
def _(ask: Ask) -> None:
    assert ask(output_format=Choice(choices=("yes indeed", "no way"))).text in ("yes indeed", "no way")


@effect("output_format.grammar")
def _(ask: Ask) -> None:
    grammar = 'root ::= "<" ("a" | "b") ">"'
    assert ask(output_format=Grammar(grammar=grammar)).text in ("<a>", "<b>")


@effect("tools")
def _(ask: Ask) -> None:
    call = ask(**TOOLS).choices[0].tool_calls[0]
    assert call.name in {tool["function"]["name"] for tool in CALLING.tools}
    assert isinstance(json.loads(call.arguments), dict)


@effect("tool_choice")
def _(ask: Ask) -> None:
    assert ask(**TOOLS, tool_choice="auto").choices[0].tool_calls
    assert not ask(**TOOLS, tool_choice="none").choices[0].tool_calls


@effect("parallel_tool_calls")
def _(ask: Ask) -> None:
    assert len(ask(**TOOLS, parallel_tool_calls=False).choices[0].tool_calls) == 1


@effect("adapter")
def _(ask: Ask) -> None:
    assert ask(adapter="capitals").text not in ("", ask().text)


@effect("cache_salt")
def _(ask: Ask) -> None:
    def cached(**fields: Any) -> int:
        return ask(messages=LONG, max_tokens=1, **fields).usage.cached_tokens

    cached()
    assert cached() > 0
    assert cached(cache_salt="mine") == 0


EXAMPLES: Mapping[str, dict[str, Any]] = {
    "sampling.min_tokens": {"min_tokens": 2},
    "sampling.ignore_eos": {"ignore_eos": True},
    "sampling.n": {"n": 2},
    "sampling.seed": {"seed": 1},
    "sampling.temperature": {"temperature": 0.5},
    "sampling.max_tokens": {"max_tokens": 3},
    "sampling.top_p": {"top_p": 0.5},
    "sampling.top_k": {"top_k": 3},
    "sampling.min_p": {"min_p": 0.1},
    "sampling.stop": {"stop": ("x",)},
    "sampling.include_stop_str_in_output": {"include_stop_str_in_output": True},
    "sampling.stop_token_ids": {"stop_token_ids": (5,)},
    "sampling.presence_penalty": {"presence_penalty": 1.0},
    "sampling.frequency_penalty": {"frequency_penalty": 1.0},
    "sampling.repetition_penalty": {"repetition_penalty": 1.5},
    "sampling.logit_bias": {"logit_bias": {5: 1.0}},
    "sampling.logprobs": {"logprobs": 1},
    "sampling.prompt_logprobs": {"prompt_logprobs": 1},
    "sampling.skip_special_tokens": {"skip_special_tokens": False},
    "output_format.json_object": {"output_format": JsonObject()},
    "output_format.json_schema": {"output_format": JsonSchema(schema=CITY)},
    "output_format.regex": {"output_format": Regex(pattern="a+")},
    "output_format.choice": {"output_format": Choice(choices=("a", "b"))},
    "output_format.grammar": {"output_format": Grammar(grammar='root ::= "a"')},
    "media.image": {"media": (MediaPart(type="image", data=b"x", mime_type="image/png"),)},
    "media.audio": {"media": (MediaPart(type="audio", data=b"x", mime_type="audio/wav"),)},
    "media.video": {"media": (MediaPart(type="video", data=b"x", mime_type="video/mp4"),)},
    "tools": TOOLS,
    "tool_choice": {"tool_choice": "required"},
    "parallel_tool_calls": {"parallel_tool_calls": False},
    "adapter": {"adapter": "capitals"},
    "priority": {"priority": 1},
    "cache_salt": {"cache_salt": "salt"},
    "handoff": {"handoff": {"state": 1}},
}
"""One value of each field that a request would not have by default."""
