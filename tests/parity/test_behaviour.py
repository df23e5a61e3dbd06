"""Hold what the conformance kit cannot know equal over the engines that load the demo model: exact counts and cuts."""

from __future__ import annotations

from typing import Any

import pytest

from trunnion import Completion, GenerateRequest, MessagesPrompt, SamplingParams, SyncPipeline

from .engines import PLAIN

pytestmark = pytest.mark.engine


def ask(pipeline: SyncPipeline, *, delivery: Any = "delta", **sampling: Any) -> Completion:
    params = SamplingParams(**{"temperature": 0.0, "max_tokens": PLAIN.max_tokens, **sampling})
    prompt = MessagesPrompt(messages=PLAIN.messages)
    return pipeline.complete([GenerateRequest(prompt=prompt, sampling=params, delivery=delivery)])[0]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    from trunnion_demo import model_path

    return AutoTokenizer.from_pretrained(model_path())


@pytest.mark.parametrize("delivery", ["delta", "final"])
def test_usage_counts_the_tokens_of_the_template_and_of_the_answer(pipeline: SyncPipeline, tokenizer, delivery) -> None:
    answer = ask(pipeline, delivery=delivery)
    prompt = tokenizer.apply_chat_template(list(PLAIN.messages), add_generation_prompt=True, return_dict=False)
    assert answer.usage.prompt_tokens == len(prompt)
    spoken = len(tokenizer(PLAIN.expected, add_special_tokens=False).input_ids)
    assert answer.usage.completion_tokens == spoken + 1  # the end of the turn is a token
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].stop_reason is None


def test_the_first_stop_string_in_the_text_counts(pipeline: SyncPipeline) -> None:
    words = PLAIN.expected.split()
    answer = ask(pipeline, stop=(words[3], words[2]))
    assert answer.text.strip() == PLAIN.expected[: PLAIN.expected.index(words[2])].strip()
    assert answer.choices[0].finish_reason == "stop"


def test_logprobs_have_one_shape(pipeline: SyncPipeline) -> None:
    logprobs = ask(pipeline, logprobs=2, max_tokens=6).choices[0].logprobs
    assert PLAIN.expected.startswith("".join(entry.token for entry in logprobs).strip())
    assert [len(entry.top) for entry in logprobs] == [2] * 6
