"""Hold the greedy text of the demo's prompts equal in process, in a Ray Data batch and over HTTP, adapters included."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
import trunnion
from openai import OpenAI
from trunnion import GenerateRequest, MessagesPrompt, SamplingParams, SyncPipeline
from trunnion_demo import PROMPTS, adapter_paths
from trunnion_http import PipelineModel, create_app, make_server

WANTED = [
    (prompt, adapter, prompt.expected if adapter is None else prompt.adapted[adapter])
    for adapter in (None, *adapter_paths())
    for prompt in PROMPTS
    if adapter is None or adapter in prompt.adapted
]
UNTOOLED = [entry for entry in WANTED if not entry[0].tools]


def visible(text: str | None, calls: list[tuple[str, str]]) -> str:
    """Return the answer as the model wrote it: text, then its tool calls in Hermes' form."""
    blocks = [
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': json.loads(arguments)})}\n</tool_call>"
        for name, arguments in calls
    ]
    return "\n".join([*([text.strip()] if text and text.strip() else []), *blocks])


def requests(wanted, delivery):
    return [
        GenerateRequest(
            prompt=MessagesPrompt(messages=prompt.messages),
            tools=prompt.tools,
            adapter=adapter,
            delivery=delivery,
            sampling=SamplingParams(temperature=0.0, max_tokens=prompt.max_tokens),
        )
        for prompt, adapter, _ in wanted
    ]


def check(completions, wanted) -> None:
    for completion, (prompt, adapter, expected) in zip(completions, wanted, strict=True):
        choice = completion.choices[0]
        calls = [(call.name, call.arguments) for call in choice.tool_calls]
        assert visible(choice.text, calls) == expected, (prompt.name, adapter)
        assert choice.finish_reason in ("stop", "tool_calls")


@pytest.fixture(scope="module")
def pipeline(models):
    spec = trunnion.engine_spec("llamacpp", models.beside, {"adapters": models.adapters})
    with SyncPipeline(spec) as pipeline:
        yield pipeline


def test_there_is_something_to_compare() -> None:
    assert len(PROMPTS) == 30
    assert len(WANTED) > 70
    assert len(UNTOOLED) > 60


@pytest.mark.parametrize("delivery", ["delta", "final"])
def test_with_the_tokenizer_beside(pipeline: SyncPipeline, delivery: Any) -> None:
    assert pipeline.pipeline.info.tokenizer is not None
    check(pipeline.complete(requests(WANTED, delivery)), WANTED)


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
def test_of_the_file_alone(models, kind: str) -> None:
    """The engine templates and tokenizes by what the file holds; adapters come as PEFT wrote them."""
    adapters = {name: str(path) for name, path in adapter_paths().items()}
    spec = trunnion.engine_spec("llamacpp", models.alone, {"adapters": adapters, "cache_type": kind})
    with SyncPipeline(spec) as pipeline:
        assert pipeline.pipeline.info.tokenizer is None
        for delivery in ("delta", "final"):
            check(pipeline.complete(requests(UNTOOLED, delivery)), UNTOOLED)


def test_one_at_a_time_is_the_same_as_side_by_side(models) -> None:
    spec = trunnion.engine_spec("llamacpp", models.alone, {"n_seq_max": 1, "prefix_cache": False})
    base = [entry for entry in UNTOOLED if entry[1] is None]
    with SyncPipeline(spec) as pipeline:
        check(pipeline.complete(requests(base, "final")), base)


@pytest.fixture(scope="module")
def client(pipeline: SyncPipeline):
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
        text, calls = streamed(answer) if stream else whole(answer)
        assert visible(text, calls) == expected, (prompt.name, adapter)


def whole(answer: Any) -> tuple[str | None, list[tuple[str, str]]]:
    message = answer.choices[0].message
    return message.content, [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def streamed(answer: Any) -> tuple[str, list[tuple[str, str]]]:
    text, names, arguments = "", {}, {}
    for chunk in answer:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for call in choice.delta.tool_calls or ():
                names[call.index] = call.function.name or names.get(call.index, "")
                arguments[call.index] = arguments.get(call.index, "") + (call.function.arguments or "")
    return text, [(names[index], arguments[index]) for index in sorted(names)]


def test_logprobs_over_http(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": "Hello!"}],
        max_tokens=3,
        temperature=0.0,
        logprobs=True,
        top_logprobs=2,
    )
    assert "".join(entry.token for entry in answer.choices[0].logprobs.content) == answer.choices[0].message.content


@pytest.mark.ray
@pytest.mark.parametrize("file", ["beside", "alone"])
def test_in_a_batch(models, ray_session, file: str) -> None:
    import ray
    from trunnion_ray.data import ProcessorConfig, build_processor

    wanted = WANTED if file == "beside" else UNTOOLED
    rows = [
        {
            "number": number,
            "messages": json.dumps(prompt.messages),
            "tools": json.dumps(prompt.tools),
            "adapter": adapter or "",
            "max_tokens": prompt.max_tokens,
        }
        for number, (prompt, adapter, _) in enumerate(wanted)
    ]
    config = {"adapters": models.adapters}
    processor = build_processor(
        ProcessorConfig(engine="llamacpp", model=getattr(models, file), config=config),
        preprocess=lambda row: {
            "messages": json.loads(row["messages"]),
            "tools": json.loads(row["tools"]) or None,
            "model": row["adapter"] or None,
            "sampling_params": {"temperature": 0.0, "max_tokens": row["max_tokens"]},
        },
    )
    answered = {row["number"]: row for row in processor(ray.data.from_items(rows)).take_all()}
    for number, (prompt, adapter, expected) in enumerate(wanted):
        row = answered[number]
        assert row["error"] is None, row["error"]
        calls = row["tool_calls"]
        calls = json.loads(calls) if isinstance(calls, str) else list(calls if calls is not None else ())
        pairs = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
        assert visible(row["generated_text"], pairs) == expected, (prompt.name, adapter)


@pytest.mark.ray
def test_on_ray_serve(models, ray_session) -> None:
    from ray import serve
    from trunnion_ray.serve import ModelConfig, build_openai_app

    model = ModelConfig(name="demo", engine="llamacpp", model=models.beside, adapters=models.adapters)
    serve.start(http_options={"host": "127.0.0.1", "port": (port := free_port()), "location": "HeadOnly"})
    try:
        serve.run(build_openai_app([model]), name="demo", route_prefix="/")
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0) as api:
            for prompt, adapter, expected in [WANTED[0], WANTED[26], WANTED[-1]]:
                options: dict[str, Any] = {"tools": list(prompt.tools)} if prompt.tools else {}
                answer = api.chat.completions.create(
                    model=adapter or "demo",
                    messages=list(prompt.messages),
                    max_tokens=prompt.max_tokens,
                    temperature=0.0,
                    stream=True,
                    **options,
                )
                assert visible(*streamed(answer)) == expected, (prompt.name, adapter)
    finally:
        serve.shutdown()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
