"""Hold usage, finish reasons and stops equal over the engines that load the demo model."""

from __future__ import annotations

import pytest

from trunnion import SyncPipeline

from .effects import LONG, PLAIN, Ask

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    from trunnion_demo import model_path

    return AutoTokenizer.from_pretrained(model_path())


@pytest.mark.parametrize("delivery", ["delta", "final"])
def test_usage_counts_the_tokens_of_the_template_and_of_the_answer(pipeline: SyncPipeline, tokenizer, delivery) -> None:
    answer = Ask(pipeline)(delivery=delivery)
    prompt = tokenizer.apply_chat_template(list(PLAIN.messages), add_generation_prompt=True, return_dict=False)
    assert answer.usage.prompt_tokens == len(prompt)
    spoken = len(tokenizer(PLAIN.expected, add_special_tokens=False).input_ids)
    assert answer.usage.completion_tokens == spoken + 1  # the end of the turn is a token
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].stop_reason is None


def test_usage_adds_up_over_choices(pipeline: SyncPipeline) -> None:
    ask = Ask(pipeline)
    one, three = ask(max_tokens=2), ask(max_tokens=2, n=3, temperature=0.5)
    assert three.usage.prompt_tokens == one.usage.prompt_tokens
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens == 6
    assert [choice.finish_reason for choice in three.choices] == ["length"] * 3


def test_a_stop_string_is_named_and_cut_off(pipeline: SyncPipeline) -> None:
    words = PLAIN.expected.split()
    answer = Ask(pipeline)(stop=(words[3], words[2]))
    assert PLAIN.expected.startswith(answer.text)
    assert words[2] not in answer.text
    assert answer.choices[0].finish_reason == "stop"


def test_eight_streams_keep_apart(pipeline: SyncPipeline) -> None:
    ask = Ask(pipeline)
    asked = [{"max_tokens": length} for length in range(2, 10)]
    alone = [ask(**fields).text for fields in asked]
    assert ask.many(*asked) == alone
    assert len(set(alone)) == 8


def test_a_prompt_that_does_not_fit_is_refused(pipeline: SyncPipeline) -> None:
    from trunnion.errors import ContextOverflow, InvalidArgument

    with pytest.raises((ContextOverflow, InvalidArgument)) as refused:
        Ask(pipeline)(messages=LONG * 20)
    assert refused.value.http_status == 400
