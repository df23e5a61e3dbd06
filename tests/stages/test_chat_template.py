"""The chat_template stage."""

from __future__ import annotations

import pytest

from trunnion.errors import ConfigError, InvalidArgument, ModelNotFound, UnsupportedFeature
from trunnion.requests import GenerateRequest, MessagesPrompt, TextPrompt
from trunnion_stages.chat_template import ChatTemplateStage
from trunnion_stages.config import ChatTemplateConfig

from .conftest import context

USER = {"role": "user", "content": "Hello"}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def run(path, messages, *, tools=(), tool_choice=None, config=None, **prompt):
    stage = ChatTemplateStage(context(path), ChatTemplateConfig(**(config or {})))
    request = GenerateRequest(prompt=MessagesPrompt(messages=messages, **prompt), tools=tools, tool_choice=tool_choice)
    (result,) = stage.process([request])
    if isinstance(result, Exception):
        raise result
    assert result.request_id == request.request_id
    assert isinstance(result.prompt, TextPrompt)
    assert result.prompt.add_special_tokens is False
    return result.prompt.text


def test_renders_system_and_user(byte_level):
    text = run(byte_level, [{"role": "system", "content": "Be kind."}, USER])
    assert text == (
        "<s><|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("kwargs", [{}, {"shout": True}, {"documents": [{"title": "a", "text": "b"}]}])
@pytest.mark.parametrize("generation_prompt", [True, False])
@pytest.mark.parametrize("tools", [(), (TOOL,)])
def test_equals_transformers(byte_level, tools, generation_prompt, kwargs):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(byte_level).apply_chat_template(
        [USER], tools=list(tools) or None, tokenize=False, add_generation_prompt=generation_prompt, **kwargs
    )
    ours = run(byte_level, [USER], tools=tools, add_generation_prompt=generation_prompt, chat_template_kwargs=kwargs)
    assert ours == theirs


def test_tools_are_rendered_unless_the_choice_is_none(byte_level):
    assert '"weather"' in run(byte_level, [USER], tools=(TOOL,))
    assert '"weather"' not in run(byte_level, [USER], tools=(TOOL,), tool_choice="none")


def test_continue_final_message(byte_level):
    text = run(byte_level, [USER, {"role": "assistant", "content": "Dear"}], continue_final_message=True)
    assert text.endswith("<|im_start|>assistant\nDear")


def test_reserved_template_kwargs_are_refused(byte_level):
    with pytest.raises(InvalidArgument, match="must not hold messages") as caught:
        run(byte_level, [USER], chat_template_kwargs={"messages": []})
    assert caught.value.param == "chat_template_kwargs.messages"


def test_request_template_is_refused_unless_allowed(byte_level):
    with pytest.raises(UnsupportedFeature) as caught:
        run(byte_level, [USER], chat_template="{{ messages[0].content }}!")
    assert caught.value.param == "chat_template"
    allowed = {"allow_request_template": True}
    assert run(byte_level, [USER], chat_template="{{ messages[0].content }}!", config=allowed) == "Hello!"
    with pytest.raises(InvalidArgument, match="does not compile") as caught:
        run(byte_level, [USER], chat_template="{% if %}", config=allowed)
    assert caught.value.param == "chat_template"


def test_request_template_cannot_leave_the_sandbox(byte_level):
    with pytest.raises(InvalidArgument):
        run(
            byte_level,
            [USER],
            chat_template="{{ ''.__class__.__mro__[1].__subclasses__() }}",
            config={"allow_request_template": True},
        )


def test_configured_template_is_text_or_a_path(byte_level, tmp_path):
    assert run(byte_level, [USER], config={"chat_template": "T {{ messages[0].content }}"}) == "T Hello"
    path = tmp_path / "own.jinja"
    path.write_text("P {{ messages[0].content }}")
    assert run(byte_level, [USER], config={"chat_template": str(path)}) == "P Hello"
    with pytest.raises(ConfigError, match="neither a template"):
        run(byte_level, [USER], config={"chat_template": str(tmp_path / "gone.jinja")})
    with pytest.raises(ConfigError, match="does not compile"):
        run(byte_level, [USER], config={"chat_template": "{% if %}"})


def test_template_of_the_tool_kind_is_taken_for_tools(make_tokenizer):
    path = make_tokenizer(template={"default": "plain", "tool_use": "with tools"})
    assert run(path, [USER]) == "plain"
    assert run(path, [USER], tools=(TOOL,)) == "with tools"


def test_what_the_template_raises_is_said(byte_level):
    with pytest.raises(InvalidArgument, match="no villains here") as caught:
        run(byte_level, [{"role": "villain", "content": "Ha"}])
    assert caught.value.param == "messages"


def test_model_without_template(make_tokenizer):
    with pytest.raises(InvalidArgument, match="no chat template"):
        run(make_tokenizer(template=None), [USER])


def test_engine_without_tokenizer_and_missing_model(tmp_path):
    with pytest.raises(ConfigError, match=r"EngineInfo\.tokenizer is None"):
        run(None, [USER])
    with pytest.raises(ModelNotFound, match="cannot load the tokenizer"):
        run(tmp_path / "nothing", [USER])


def test_text_parts_are_joined_or_kept(byte_level):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert "user\na\nb<" in run(byte_level, [{"role": "user", "content": parts}])
    kept = {"content_format": "parts", "chat_template": "{{ messages[0].content | length }}"}
    assert run(byte_level, [{"role": "user", "content": parts}], config=kept) == "2"


def test_tool_call_arguments_become_objects(byte_level):
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    assert "assistant\n[Rome]<" in run(byte_level, [USER, message])
    assert call["function"]["arguments"] == '{"city": "Rome"}'


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("Hello", "messages"),
        (None, "messages"),
        ([USER, "Hello"], "messages[1]"),
        ([USER, {"content": "Hello"}], "messages[1].role"),
        ([{"role": 3, "content": "Hello"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 3}], "messages[0].content"),
        ([{"role": "user", "content": [3]}], "messages[0].content[0]"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages[0].content[0].type"),
        ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0]"),
        (
            [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_bad_messages_name_their_place(byte_level, messages, param):
    with pytest.raises(InvalidArgument) as caught:
        run(byte_level, messages)
    assert caught.value.param == param
    assert param in str(caught.value)


def test_a_bad_row_leaves_its_neighbours_alone(byte_level):
    stage = ChatTemplateStage(context(byte_level), ChatTemplateConfig())
    good = GenerateRequest(prompt=MessagesPrompt(messages=[USER]))
    bad = GenerateRequest(prompt=MessagesPrompt(messages=[]))
    text = GenerateRequest(prompt=TextPrompt(text="as it is"))
    results = stage.process([good, bad, text, good])
    assert isinstance(results[1], InvalidArgument)
    assert results[2] is text
    assert results[0].prompt == results[3].prompt
