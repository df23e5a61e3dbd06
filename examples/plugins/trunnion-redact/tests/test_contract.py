"""Hooks and stage keep the contract; see trunnion.testing."""

import pytest
import trunnion as t
from trunnion.testing import HooksSuite, StageSuite

from trunnion_redact.mask import Masked

BOB, TEL = "bob@example.com", "+1 650 253 0000"


class TestHooks(HooksSuite):
    plugin = "redact"

    @pytest.fixture(scope="class")
    @classmethod
    def requests(cls):
        messages = ({"role": "user", "content": f"I am {BOB}, {TEL}"},)
        return [
            t.GenerateRequest(prompt=t.MessagesPrompt(messages=messages)),
            t.GenerateRequest(prompt=t.TextPrompt(text=f"I am {BOB}")),
            t.GenerateRequest(prompt=t.TextPrompt(text="I am nobody")),
        ]


class TestStage(StageSuite):
    plugin = "redact_restore"

    @pytest.fixture(scope="class")
    @classmethod
    def streams(cls):
        request = t.GenerateRequest(prompt=t.TextPrompt(text="x"), sampling=t.SamplingParams(n=2))
        masked = Masked(values={"<EMAIL_1>": BOB, "<PHONE_1>": TEL})
        texts = ("To <EMAIL_1>, <<PHONE_1>> and <EMAIL_2>", "<PHONE_1><EMAIL_1> <EMA")
        events = [t.GenerateEvent(choices=(t.ChoiceDelta(index=i, text=text),)) for i, text in enumerate(texts)]
        ends = tuple(t.ChoiceDelta(index=i, finish_reason="stop") for i in range(2))
        usage = t.Usage(prompt_tokens=1, completion_tokens=9)
        return [(request.with_note("redact", masked), [*events, t.GenerateEvent(choices=ends, usage=usage)])]
