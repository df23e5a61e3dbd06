"""Hold the greedy text of 30 prompts equal in process, in a Ray Data batch and over HTTP, adapters included."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import OpenAI

from trunnion import GenerateRequest, MessagesPrompt, SamplingParams, SyncPipeline
from trunnion_demo import PROMPTS
from trunnion_http import PipelineModel, create_app, make_server

from .engines import ADAPTERS, EngineCase

pytestmark = pytest.mark.engine

VARIANTS: list[str | None] = [None, *ADAPTERS]
WANTED = [
    (prompt, adapter, prompt.expected if adapter is None else prompt.adapted[adapter])
    for adapter in VARIANTS
    for prompt in PROMPTS
    if adapter is None or adapter in prompt.adapted
]


def visible(text: str | None, calls: list[tuple[str, str]]) -> str:
    """Return the answer as the model wrote it: text, then its tool calls in Hermes' form."""
    blocks = [
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': json.loads(arguments)})}\n</tool_call>"
        for name, arguments in calls
    ]
    return "\n".join([*([text.strip()] if text and text.strip() else []), *blocks])


@pytest.mark.parametrize("delivery", ["delta", "final"])
def test_in_process(pipeline: SyncPipeline, delivery: Any) -> None:
    requests = [
        GenerateRequest(
            prompt=MessagesPrompt(messages=prompt.messages),
            tools=prompt.tools,
            adapter=adapter,
            delivery=delivery,
            sampling=SamplingParams(temperature=0.0, max_tokens=prompt.max_tokens),
        )
        for prompt, adapter, _ in WANTED
    ]
    for completion, (prompt, adapter, expected) in zip(pipeline.complete(requests), WANTED, strict=True):
        choice = completion.choices[0]
        calls = [(call.name, call.arguments) for call in choice.tool_calls]
        assert visible(choice.text, calls) == expected, (prompt.name, adapter)


@pytest.fixture(scope="module")
def client(pipeline: SyncPipeline) -> Iterator[OpenAI]:
    """Serve the same pipeline over HTTP, on its own loop."""
    server = make_server(create_app([PipelineModel("demo", pipeline.pipeline)]), port=0)
    thread = pipeline._thread
    serving = thread.submit(server.serve())

    async def ready() -> int:
        while not server.started:
            await asyncio.sleep(0.02)
        return server.servers[0].sockets[0].getsockname()[1]

    with OpenAI(base_url=f"http://127.0.0.1:{thread.run(ready())}/v1", api_key="none", max_retries=0) as client:
        yield client
    server.should_exit = True
    serving.result(timeout=30)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_over_http(client: OpenAI, *, stream: bool) -> None:
    for prompt, adapter, expected in WANTED:
        options: dict[str, Any] = {"tools": list(prompt.tools)} if prompt.tools else {}
        answer = client.chat.completions.create(
            model=adapter or "demo",
            messages=list(prompt.messages),
            max_tokens=prompt.max_tokens,
            temperature=0.0,
            stream=stream,
            **options,
        )
        text, calls = _streamed(answer) if stream else _whole(answer)
        assert visible(text, calls) == expected, (prompt.name, adapter)


def _whole(answer: Any) -> tuple[str | None, list[tuple[str, str]]]:
    message = answer.choices[0].message
    return message.content, [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def _streamed(answer: Any) -> tuple[str, list[tuple[str, str]]]:
    text, names, arguments = "", {}, {}
    for chunk in answer:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for call in choice.delta.tool_calls or ():
                names[call.index] = call.function.name or names.get(call.index, "")
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    return text, [(names[index], arguments[index]) for index in sorted(names)]


@pytest.mark.ray
def test_in_a_batch(case: EngineCase, ray_session: None) -> None:
    import ray

    from trunnion_ray.data import ProcessorConfig, build_processor

    rows = [
        {
            "number": number,
            "messages": json.dumps(prompt.messages),
            "tools": json.dumps(prompt.tools),
            "adapter": adapter or "",
            "max_tokens": prompt.max_tokens,
        }
        for number, (prompt, adapter, _) in enumerate(WANTED)
    ]
    processor = build_processor(
        ProcessorConfig(engine=case.engine, model=case.model, config=case.config),
        preprocess=lambda row: {
            "messages": json.loads(row["messages"]),
            "tools": json.loads(row["tools"]) or None,
            "model": row["adapter"] or None,
            "sampling_params": {"temperature": 0.0, "max_tokens": row["max_tokens"]},
        },
    )
    answered = {row["number"]: row for row in processor(ray.data.from_items(rows)).take_all()}
    for number, (prompt, adapter, expected) in enumerate(WANTED):
        row = answered[number]
        assert row["error"] is None, row["error"]
        calls = row["tool_calls"]
        calls = json.loads(calls) if isinstance(calls, str) else list(calls if calls is not None else ())
        pairs = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
        assert visible(row["generated_text"], pairs) == expected, (prompt.name, adapter)
