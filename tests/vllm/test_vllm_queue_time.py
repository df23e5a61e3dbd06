"""The time in vLLM's queue is told where vLLM takes it, which it does with its statistics on."""

from types import SimpleNamespace

import pytest

pytest.importorskip("vllm")

from trunnion.requests import GenerateRequest, TextPrompt
from trunnion.timing import MARKS, Marks
from trunnion_vllm.events import EventConverter


def end(metrics):
    piece = SimpleNamespace(finish_reason="stop", token_ids=[1], index=0, text="a", logprobs=None, stop_reason=None)
    return SimpleNamespace(
        outputs=[piece],
        finished=True,
        prompt_token_ids=[1, 2],
        num_cached_tokens=0,
        metrics=metrics,
        prompt_logprobs=None,
    )


@pytest.mark.parametrize(
    ("metrics", "queued"),
    [
        (SimpleNamespace(queued_ts=10.0, scheduled_ts=10.5), 0.5),
        (SimpleNamespace(queued_ts=0.0, scheduled_ts=0.0), None),
        (None, None),
    ],
)
def test_the_queue_time_of_a_request_is_marked(metrics, queued):
    marks = Marks()
    token = MARKS.set(marks)
    try:
        EventConverter(GenerateRequest(prompt=TextPrompt(text="x"))).convert(end(metrics))
    finally:
        MARKS.reset(token)
    assert marks.queued == queued


def test_nobody_need_listen():
    event = EventConverter(GenerateRequest(prompt=TextPrompt(text="x"))).convert(
        end(SimpleNamespace(queued_ts=1.0, scheduled_ts=2.0))
    )
    assert event.usage.completion_tokens == 1
