"""What is asked for is on the wire, or refused by name."""

import pytest

from trunnion import (
    Choice,
    GenerateRequest,
    Grammar,
    JsonObject,
    JsonSchema,
    MediaPart,
    MessagesPrompt,
    Regex,
    SamplingParams,
    Support,
    TextPrompt,
    TokensPrompt,
)
from trunnion.capabilities import HINTS, used_features
from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion_openai.body import BodyWriter
from trunnion_openai.capabilities import EXTRAS, MEDIA, STANDARD, capabilities

HI = ({"role": "user", "content": "Hi"},)
MESSAGES = MessagesPrompt(messages=HI)
TEXT = TextPrompt(text="Hi")
TOOL = {"type": "function", "function": {"name": "f"}}
PICTURE = MediaPart(type="image", url="http://x/y.png")


def write(dialect="vllm", prompt=MESSAGES, extra=None, stream_usage=True, context=None, **fields):
    sampling = SamplingParams(**fields.pop("sampling", {}))
    writer = BodyWriter("m", dialect, stream_usage=stream_usage, extra=extra or {}, context=context)
    return writer.write(GenerateRequest(prompt=prompt, sampling=sampling, **fields))


# Feature -> what asks for it, and what it makes on the wire of the chat API.
SAMPLING = {
    "temperature": (0.5, {"temperature": 0.5}),
    "top_p": (0.9, {"top_p": 0.9}),
    "top_k": (5, {"top_k": 5}),
    "min_p": (0.1, {"min_p": 0.1}),
    "max_tokens": (7, {"max_tokens": 7}),
    "min_tokens": (2, {"min_tokens": 2}),
    "n": (2, {"n": 2}),
    "stop": (("a", "b"), {"stop": ["a", "b"]}),
    "stop_token_ids": ((7,), {"stop_token_ids": [7]}),
    "include_stop_str_in_output": (True, {"include_stop_str_in_output": True}),
    "ignore_eos": (True, {"ignore_eos": True}),
    "seed": (3, {"seed": 3}),
    "presence_penalty": (0.5, {"presence_penalty": 0.5}),
    "frequency_penalty": (0.5, {"frequency_penalty": 0.5}),
    "repetition_penalty": (1.5, {"repetition_penalty": 1.5}),
    "logit_bias": ({7: -1.0}, {"logit_bias": {"7": -1.0}}),
    "logprobs": (3, {"logprobs": True, "top_logprobs": 3}),
    "prompt_logprobs": (1, {"prompt_logprobs": 1}),
    "skip_special_tokens": (False, {"skip_special_tokens": False}),
}
SCHEMA = {"type": "object"}
FIELDS = {
    "output_format.json_object": ({"output_format": JsonObject()}, {"response_format": {"type": "json_object"}}),
    "output_format.json_schema": (
        {"output_format": JsonSchema(schema=SCHEMA, name="n")},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}}},
    ),
    "output_format.regex": ({"output_format": Regex(pattern="a+")}, {"structured_outputs": {"regex": "a+"}}),
    "output_format.choice": (
        {"output_format": Choice(choices=("a", "b"))},
        {"structured_outputs": {"choice": ["a", "b"]}},
    ),
    "output_format.grammar": ({"output_format": Grammar(grammar="g")}, {"structured_outputs": {"grammar": "g"}}),
    "tools": ({"tools": (TOOL,)}, {"tools": [TOOL]}),
    "tool_choice": ({"tool_choice": "required"}, {"tool_choice": "required"}),
    "parallel_tool_calls": ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
    "adapter": ({"adapter": "a"}, {"model": "a"}),
    "priority": ({"priority": 3}, {"priority": 3}),
    "cache_salt": ({"cache_salt": "s"}, {"cache_salt": "s"}),
}
CASES = {
    **{f"sampling.{name}": ({"sampling": {name: value}}, made) for name, (value, made) in SAMPLING.items()},
    **FIELDS,
}
PLAIN = {"model": "m", "messages": [*HI], "stream": True, "stream_options": {"include_usage": True}}


def test_nothing_more_is_sent_than_was_asked_for():
    wire = write()
    assert (wire.path, wire.body, wire.stream) == ("/chat/completions", PLAIN, True)
    assert write(delivery="final").body == {"model": "m", "messages": [*HI]}
    assert "stream_options" not in write(stream_usage=False).body


@pytest.mark.parametrize("feature", CASES)
def test_a_field_is_on_the_wire(feature):
    fields, made = CASES[feature]
    wire = write(**fields)
    request = GenerateRequest(prompt=MESSAGES, **{**fields, "sampling": SamplingParams(**fields.get("sampling", {}))})
    assert used_features(request) == [feature]
    plain = PLAIN if wire.stream else {key: value for key, value in PLAIN.items() if not key.startswith("stream")}
    assert wire.body == {**plain, **made}


UP_TO_THE_SERVER = {"media.video", "priority"}
"""What vLLM's server may or may not take, as it was started."""


def test_every_feature_is_classified_and_every_declared_one_is_tested():
    tested = set(CASES) | {"trace", *MEDIA, "media.video"}  # those have tests of their own
    assert tested == {*STANDARD, *EXTRAS, *MEDIA}
    for dialect, support in (("openai", Support.NO), ("vllm", Support.YES), ("other", Support.UNKNOWN)):
        declared = capabilities(dialect)
        assert all(declared.support(name) is Support.YES for name in STANDARD)
        assert {declared.support(name) for name in EXTRAS if name not in UP_TO_THE_SERVER} == {support}
        for name in [*EXTRAS, *MEDIA]:
            if declared.support(name) is not Support.YES:
                assert declared.reasons[name]
        assert {name for name, s in declared.features.items() if s is Support.NO} >= {*HINTS} - {"trace"}


def test_openai_counts_completion_tokens():
    assert write("openai", sampling={"max_tokens": 7}).body["max_completion_tokens"] == 7
    assert write("other", sampling={"max_tokens": 7}).body["max_tokens"] == 7


def test_prompt_logprobs_come_whole():
    wire = write(sampling={"prompt_logprobs": 1})
    assert not wire.stream
    assert "stream" not in wire.body


@pytest.mark.parametrize(
    ("prompt", "name", "value"),
    [
        (MessagesPrompt(messages=HI, add_generation_prompt=False), "add_generation_prompt", False),
        (MessagesPrompt(messages=HI, continue_final_message=True), "continue_final_message", True),
        (MessagesPrompt(messages=HI, chat_template="T"), "chat_template", "T"),
        (MessagesPrompt(messages=HI, chat_template_kwargs={"a": 1}), "chat_template_kwargs", {"a": 1}),
        (TextPrompt(text="Hi", add_special_tokens=False), "add_special_tokens", False),
    ],
)
def test_what_a_prompt_asks_for(prompt, name, value):
    for dialect in ("vllm", "other"):
        assert write(dialect, prompt, sampling={"max_tokens": 1}).body[name] == value
    with pytest.raises(UnsupportedFeature) as caught:
        write("openai", prompt, sampling={"max_tokens": 1})
    assert caught.value.param == name


def test_text_and_tokens_go_to_the_completions_api():
    wire = write(prompt=TEXT, sampling={"logprobs": 2, "max_tokens": 3})
    assert wire.path == "/completions"
    assert wire.body["prompt"] == "Hi"
    assert wire.body["logprobs"] == 2
    assert write(prompt=TokensPrompt(token_ids=(1, 2)), sampling={"max_tokens": 3}).body["prompt"] == [1, 2]


def test_the_completions_api_would_end_after_16_tokens():
    tokens = TokensPrompt(token_ids=(1, 2, 3))
    assert write("vllm", tokens, context=10).body["max_tokens"] == 7
    assert write("vllm", tokens, context=2).body["max_tokens"] == 1  # which the endpoint refuses
    for prompt, context in ((TEXT, 10), (tokens, None)):
        with pytest.raises(InvalidArgument, match="16 tokens") as caught:
            write("vllm", prompt, context=context)
        assert caught.value.param == "max_tokens"


@pytest.mark.parametrize(
    ("name", "fields"),
    [("tools", {"tools": (TOOL,)}), ("tool_choice", {"tool_choice": "none"}), ("media", {"media": (PICTURE,)})],
)
def test_what_the_completions_api_has_not(name, fields):
    with pytest.raises(UnsupportedFeature) as caught:
        write(prompt=TEXT, sampling={"max_tokens": 1}, **fields)
    assert caught.value.param == name


def test_output_formats_of_the_completions_api():
    assert "response_format" in write("vllm", TEXT, output_format=JsonObject(), sampling={"max_tokens": 1}).body
    with pytest.raises(UnsupportedFeature) as caught:
        write("openai", TEXT, output_format=JsonObject(), sampling={"max_tokens": 1})
    assert caught.value.param == "output_format"


def test_arguments_of_tool_calls_are_text_on_the_wire():
    made = []
    for arguments in ({"a": 1}, '{"a": 1}'):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        prompt = MessagesPrompt(messages=(*HI, {"role": "assistant", "content": None, "tool_calls": [call]}))
        made.append(write(prompt=prompt).body["messages"])
        assert call["function"]["arguments"] == arguments
    assert made[0] == made[1]


def test_media_in_the_messages_stay_where_they_are():
    part = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    prompt = MessagesPrompt(messages=({"role": "user", "content": [{"type": "text", "text": "?"}, part]},))
    assert write(prompt=prompt, media=(PICTURE,)).body["messages"] == list(prompt.messages)


def test_media_beside_the_messages_are_added():
    media = (
        PICTURE,
        MediaPart(type="image", data=b"ab", mime_type="image/jpeg"),
        MediaPart(type="audio", data=b"ab", mime_type="audio/mp3"),
        MediaPart(type="audio", url="http://x/a.wav"),
        MediaPart(type="video", url="http://x/v.mp4"),
    )
    content = write(media=media).body["messages"][0]["content"]
    assert content == [
        {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,YWI="}},
        {"type": "input_audio", "input_audio": {"data": "YWI=", "format": "mp3"}},
        {"type": "audio_url", "audio_url": {"url": "http://x/a.wav"}},
        {"type": "video_url", "video_url": {"url": "http://x/v.mp4"}},
        {"type": "text", "text": "Hi"},
    ]
    assert HI[0]["content"] == "Hi"


def test_media_that_do_not_match_are_refused():
    part = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    prompt = MessagesPrompt(messages=({"role": "user", "content": [part]},))
    with pytest.raises(InvalidArgument) as caught:
        write(prompt=prompt, media=(PICTURE, PICTURE))
    assert caught.value.param == "media"


def test_further_fields():
    assert write(extra={"reasoning_effort": "low"}).body["reasoning_effort"] == "low"
    writer = BodyWriter("m", "other", stream_usage=True, extra={"a": 1, "b": 1})
    body = writer.write(GenerateRequest(prompt=MESSAGES, extra={"openai": {"b": 2}})).body
    assert (body["a"], body["b"]) == (1, 2)
    for where, make in (
        ("extra_body.messages", lambda: BodyWriter("m", "other", stream_usage=True, extra={"messages": []})),
        ("extra.openai.model", lambda: writer.write(GenerateRequest(prompt=MESSAGES, extra={"openai": {"model": 1}}))),
    ):
        with pytest.raises(InvalidArgument) as caught:
            make()
        assert caught.value.param == where
