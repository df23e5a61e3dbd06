"""Hold the stages to the contract, with the demo model's tokenizer."""

import json
from typing import ClassVar

import pytest

from trunnion import (
    ChoiceDelta,
    EngineInfo,
    GenerateEvent,
    GenerateRequest,
    JsonSchema,
    MessagesPrompt,
    SamplingParams,
    TextPrompt,
    TokenizerRef,
    Usage,
)
from trunnion.testing import StageSuite

from .material import CALLING, MODEL, PROMPT

pytestmark = pytest.mark.slow
INFO = EngineInfo(engine="kit", model=MODEL, tokenizer=TokenizerRef(path=MODEL), context_length=1024)
TOOLS = tuple(CALLING.tools)
USAGE = Usage(prompt_tokens=3, completion_tokens=9)


def answer(text, *, reason="stop", ids=()):
    delta = ChoiceDelta(text=text, token_ids=ids, finish_reason=reason)
    return [GenerateEvent(choices=(delta,), usage=USAGE)]


class TestChatTemplate(StageSuite):
    plugin = "chat_template"
    info: ClassVar[EngineInfo] = INFO

    @pytest.fixture(scope="class")
    @classmethod
    def requests(cls):
        prompts = [MessagesPrompt(messages=PROMPT), MessagesPrompt(messages=CALLING.messages)]
        return [GenerateRequest(prompt=prompts[0]), GenerateRequest(prompt=prompts[1], tools=TOOLS)]


class TestTokenize(StageSuite):
    plugin = "tokenize"
    info: ClassVar[EngineInfo] = INFO

    @pytest.fixture(scope="class")
    @classmethod
    def requests(cls):
        return [GenerateRequest(prompt=TextPrompt(text=text)) for text in ("Hello there", "The sea is calm today.")]


class TestDetokenize(StageSuite):
    plugin = "detokenize"
    info: ClassVar[EngineInfo] = INFO
    cuts = False

    @pytest.fixture(scope="class")
    @classmethod
    def streams(cls):
        from transformers import AutoTokenizer

        ids = AutoTokenizer.from_pretrained(MODEL)("The sea is calm: Füße, 海!", add_special_tokens=False).input_ids
        request = GenerateRequest(prompt=TextPrompt(text="Hello"))
        events = [GenerateEvent(choices=(ChoiceDelta(token_ids=(token,)),)) for token in ids[:-1]]
        return [(request, [*events, *answer("", ids=(ids[-1],))])]


class TestStopStrings(StageSuite):
    plugin = "stop_strings"

    @pytest.fixture(scope="class")
    @classmethod
    def streams(cls):
        def asked(**fields):
            return GenerateRequest(prompt=TextPrompt(text="Hello"), sampling=SamplingParams(**fields))

        text = "one two three four"
        return [
            (asked(stop=("three",)), answer(text)),
            (asked(stop=("wo th", "four"), include_stop_str_in_output=True), answer(text)),
            (asked(stop=("fourteen",)), answer(text)),
        ]


class TestReasoning(StageSuite):
    plugin = "reasoning"

    @pytest.fixture(scope="class")
    @classmethod
    def streams(cls):
        request = GenerateRequest(prompt=TextPrompt(text="Hello"))
        return [(request, answer("<think>2 and 2 are 4</think>Four.")), (request, answer("Four."))]


class TestToolChoice(StageSuite):
    plugin = "tool_choice"

    @pytest.fixture(scope="class")
    @classmethod
    def requests(cls):
        name = TOOLS[0]["function"]["name"]
        named = {"type": "function", "function": {"name": name}}
        messages = MessagesPrompt(messages=CALLING.messages)
        asked = [GenerateRequest(prompt=messages, tools=TOOLS, tool_choice=choice) for choice in ("required", named)]
        return [*asked, GenerateRequest(prompt=messages, tools=TOOLS, output_format=JsonSchema(schema={}))]


class TestToolCalls(StageSuite):
    plugin = "tool_calls"

    @pytest.fixture(scope="class")
    @classmethod
    def streams(cls):
        request = GenerateRequest(prompt=MessagesPrompt(messages=CALLING.messages), tools=TOOLS)
        call = json.dumps({"name": TOOLS[0]["function"]["name"], "arguments": {"city": "Rome <b>"}})
        block = f"<tool_call>\n{call}\n</tool_call>"
        return [
            (request, answer(f"Let me see. {block}")),
            (request, answer(f"{block}\n{block}")),
            (request, answer("No call <tool at all.")),
        ]
