"""Hold the tokenizer and the chat template."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from jinja2.exceptions import TemplateError

from trunnion_demo import PROMPTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WEATHER = next(prompt for prompt in PROMPTS if prompt.name == "tool-weather")
RESULT = next(prompt for prompt in PROMPTS if prompt.name == "tool-result")
USER = {"role": "user", "content": "Hi"}


def render(tokenizer: PreTrainedTokenizerBase, *messages: object, **options: object) -> str:
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, **options)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "  two spaces,\ttab\nand lines\n\n",
        "Zürich, 東京, 🦜 and a bell \x07",
        '{"name": "get_weather", "arguments": {"city": "Paris"}}',
        "<tool_call>\n{}\n</tool_call>",
    ],
)
def test_text_survives_the_round_trip(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_tokenizer_is_fast_and_adds_nothing(tokenizer: PreTrainedTokenizerBase) -> None:
    assert tokenizer.is_fast
    assert len(tokenizer) == 2816
    assert tokenizer.encode("Hello") == tokenizer.encode("Hello", add_special_tokens=False)
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.bos_token == "<|im_start|>"


def test_special_tokens_are_the_two_of_chatml(tokenizer: PreTrainedTokenizerBase) -> None:
    assert set(tokenizer.all_special_tokens) == {"<|im_start|>", "<|im_end|>"}
    for tag in ("<tool_call>", "</tool_call>", "<|im_start|>", "<|im_end|>"):
        assert len(tokenizer.encode(tag)) == 1


def test_a_plain_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    system = {"role": "system", "content": "Be brief."}
    assert render(tokenizer, system, USER, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_text_parts_render_as_a_string_does(tokenizer: PreTrainedTokenizerBase) -> None:
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    for role in ("system", "user", "assistant", "tool"):
        assert render(tokenizer, {"role": role, "content": parts}) == render(tokenizer, {"role": role, "content": "Hi"})


def test_other_parts_and_roles_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(TemplateError, match="text parts only"):
        render(tokenizer, {"role": "user", "content": [{"type": "image"}]})
    with pytest.raises(TemplateError, match="no role"):
        render(tokenizer, {"role": "ghost", "content": "boo"})


def test_the_final_message_can_be_continued(tokenizer: PreTrainedTokenizerBase) -> None:
    begun = {"role": "assistant", "content": "Hello! How"}
    text = render(tokenizer, USER, begun, continue_final_message=True)
    assert text.endswith("<|im_start|>assistant\nHello! How")


def test_tools_follow_the_system_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    system = {"role": "system", "content": "Be brief."}
    text = render(tokenizer, system, USER, tools=list(WEATHER.tools))
    assert text.count("<|im_start|>system\n") == 1
    assert text.startswith("<|im_start|>system\nBe brief.\n\n")
    assert '<tools>\n{"type": "function", "function": {"name": "get_weather"' in text
    assert render(tokenizer, USER, tools=[]) == render(tokenizer, USER)


@pytest.mark.parametrize("arguments", [{"city": "Paris"}, '{"city": "Paris"}'])
def test_a_tool_call_renders_as_the_model_writes_it(tokenizer: PreTrainedTokenizerBase, arguments: object) -> None:
    call = {"type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    for content in ("", None):
        message = {"role": "assistant", "content": content, "tool_calls": [call]}
        text = render(tokenizer, USER, message)
        assert text.endswith(f"<|im_start|>assistant\n{WEATHER.expected}<|im_end|>\n")


def test_a_tool_result_has_a_turn_of_its_own(tokenizer: PreTrainedTokenizerBase) -> None:
    text = render(tokenizer, *RESULT.messages, tools=list(RESULT.tools))
    assert text.endswith(
        '<|im_start|>tool\n<tool_response>\n{"temperature": 21, "condition": "sunny"}\n</tool_response><|im_end|>\n'
    )
