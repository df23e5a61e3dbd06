"""What the engine is shown of a request."""

import json

import pytest
import trunnion as t
from trunnion.errors import InvalidArgument

from trunnion_redact import RedactConfig
from trunnion_redact.find import Finder
from trunnion_redact.mask import mask

BOB, AL, TEL = "bob@example.com", "al@example.org", "+1 650 253 0000"


def ask(prompt="x", **fields):
    if isinstance(prompt, str):
        prompt = t.TextPrompt(text=prompt)
    elif isinstance(prompt, list):
        prompt = t.MessagesPrompt(messages=prompt)
    return t.GenerateRequest(prompt=prompt, **fields)


def masked(request, **settings):
    return mask(request, Finder(RedactConfig(**settings)))


def shown(prompt, **fields):
    return masked(ask(prompt, **fields))[0].prompt


def test_equal_values_get_equal_placeholders_and_others_their_own():
    made, notes = masked(ask(f"{BOB}, {AL}, {BOB}; {TEL}"))
    assert made.prompt.text == "<EMAIL_1>, <EMAIL_2>, <EMAIL_1>; <PHONE_1>"
    assert notes.values == {"<EMAIL_1>": BOB, "<EMAIL_2>": AL, "<PHONE_1>": TEL}
    assert BOB not in repr(notes)
    assert BOB not in repr(made)


def test_messages_strings_parts_and_calls():
    function = {"name": "mail", "arguments": json.dumps({"to": BOB, "n": 1})}
    call = {"id": "c", "type": "function", "function": function}
    picture = {"type": "image_url", "image_url": {"url": f"https://example.com/{AL}.png"}}
    messages = [
        {"role": "system", "content": f"You serve {AL}."},
        {"role": "user", "name": BOB, "content": [{"type": "text", "text": f"I am {BOB}, {TEL}"}, picture]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": json.dumps({"sent": BOB})},
    ]
    kept = json.dumps(messages)
    made = shown(messages).messages
    assert made[0]["content"] == "You serve <EMAIL_1>."
    assert made[1]["name"] == "<EMAIL_2>"
    assert made[1]["content"] == [{"type": "text", "text": "I am <EMAIL_2>, <PHONE_1>"}, picture]
    assert made[2]["tool_calls"][0]["function"] == {"name": "mail", "arguments": '{"to": "<EMAIL_2>", "n": 1}'}
    assert made[3]["content"] == '{"sent": "<EMAIL_2>"}'
    assert json.dumps(messages) == kept, "the caller's messages were changed"


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ('{"tel": 4155552671, "on": true, "x": 1.50}', {"tel": "<PHONE_1>", "on": True, "x": 1.5}),
        ('{"a\\u0040example.com": ["\\u002b16502530000"]}', {"<EMAIL_1>": ["<PHONE_1>"]}),
        ('{ "n" : 1.50 }', None),
    ],
)
def test_arguments_are_json(arguments, wanted):
    messages = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": arguments}}]}]
    made, _ = masked(ask(messages), default_region="US")
    given = made.prompt.messages[0]["tool_calls"][0]["function"]["arguments"]
    assert given == arguments if wanted is None else json.loads(given) == wanted


def test_arguments_that_are_no_json_are_text():
    messages = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": f"{{to: {BOB}"}}]}]
    assert shown(messages).messages[0]["tool_calls"][0]["function"]["arguments"] == "{to: <EMAIL_1>"


def test_tools_formats_template_variables_and_stop_strings():
    parameters = {
        "type": "object",
        "properties": {"format": {"type": "string", "description": f"like {BOB}", "enum": [BOB, AL]}},
        "required": ["format"],
    }
    tool = {"type": "function", "function": {"name": "mail", "description": f"Ask {AL}", "parameters": parameters}}
    prompt = t.MessagesPrompt(messages=[{"role": "user", "content": BOB}], chat_template_kwargs={"signed": AL})
    made, notes = masked(ask(
        prompt,
        tools=(tool,),
        output_format=t.Choice(choices=(BOB, "none")),
        sampling=t.SamplingParams(stop=(AL, "END")),
    ))  # fmt: skip
    function = made.tools[0]["function"]
    assert function["name"] == "mail"
    assert function["description"] == "Ask <EMAIL_2>"
    assert function["parameters"]["properties"]["format"]["description"] == "like <EMAIL_1>"
    assert function["parameters"]["properties"]["format"]["enum"] == ["<EMAIL_1>", "<EMAIL_2>"]
    assert made.prompt.chat_template_kwargs == {"signed": "<EMAIL_2>"}
    assert made.output_format.choices == ("<EMAIL_1>", "none")
    assert made.sampling.stop == ("<EMAIL_2>", "END")
    assert set(notes.values.values()) == {BOB, AL}
    schema, _ = masked(ask(output_format=t.JsonSchema(schema=parameters)))
    assert BOB not in json.dumps(schema.output_format.schema)


def test_a_request_without_values_comes_back_as_it_is():
    request = ask([{"role": "user", "content": [{"type": "text", "text": "hi 42"}]}], tools=({"type": "function"},))
    made, notes = masked(request)
    assert made is request
    assert not notes.values


def test_the_users_own_placeholders_are_given_to_no_value():
    made, notes = masked(ask(f"What does <EMAIL_1> mean? Ask {BOB} or <EMAIL_3> or {AL}"))
    assert made.prompt.text == "What does <EMAIL_1> mean? Ask <EMAIL_2> or <EMAIL_3> or <EMAIL_4>"
    assert notes.values == {"<EMAIL_2>": BOB, "<EMAIL_4>": AL}


def test_a_conversation_that_grows_keeps_its_placeholders():
    first = [{"role": "user", "content": f"{BOB} {AL}"}]
    second = [*first, {"role": "assistant", "content": f"Hello {AL}"}, {"role": "user", "content": TEL}]
    assert shown(second).messages[:1] == shown(first).messages


@pytest.mark.parametrize("stop", [">", "<", "1", "EMAIL", "\n<EMAIL", "> or", "_1>\n"])
def test_a_stop_string_that_would_cut_a_placeholder_is_refused(stop):
    with pytest.raises(InvalidArgument, match="would cut <EMAIL_1>") as caught:
        masked(ask(BOB, sampling=t.SamplingParams(stop=(stop,))))
    assert caught.value.param == "stop"


@pytest.mark.parametrize("stop", ["\n", "</s>", "END", f"to {BOB}", BOB])
def test_other_stop_strings_are_not(stop):
    masked(ask(BOB, sampling=t.SamplingParams(stop=(stop,))))
    masked(ask("nothing to mask", sampling=t.SamplingParams(stop=("<",))))
