"""Let the conformance kit ask an engine behind the HTTP surface."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from trunnion import EngineSpec, LoopThread, Pipeline
from trunnion.errors import TrunnionError
from trunnion.testing.surface import Answer, Question

from .app import create_app
from .pipeline_model import PipelineModel
from .server import HTTPServer, make_server

_MODEL = "kit"
_PATIENCE = 300.0


class HTTPSurface:
    """Serve the engine on a free port of this machine; plain answers and streams must say the same."""

    def unavailable(self) -> str | None:
        """Return None: what this takes is part of Trunnion."""
        return None

    def ask(self, spec: EngineSpec, questions: Sequence[Question]) -> list[Answer]:
        """Ask over HTTP, each question plain and streamed."""
        thread = LoopThread("trunnion-kit-http")
        pipeline = Pipeline(spec)
        try:
            thread.run(pipeline.start())
            server = make_server(create_app([PipelineModel(_MODEL, pipeline)]), port=0)
            serving = thread.submit(server.serve())
            port = thread.run(_port(server))
            with ThreadPoolExecutor(2 * len(questions)) as pool:
                plain = [pool.submit(_plain, port, question) for question in questions]
                streamed = [pool.submit(_streamed, port, question) for question in questions]
                answers = [future.result(_PATIENCE) for future in plain]
                streams = [future.result(_PATIENCE) for future in streamed]
            server.should_exit = True
            serving.result(_PATIENCE)
            if streams != answers:
                raise AssertionError(f"streamed answers differ from plain ones: {streams} and {answers}")
            return answers
        finally:
            thread.run(pipeline.stop())
            thread.close()


async def _port(server: HTTPServer) -> int:
    while not server.started:  # noqa: ASYNC110 - uvicorn has a flag, no event
        await asyncio.sleep(0.02)
    port: int = server.servers[0].sockets[0].getsockname()[1]
    return port


def _post(port: int, question: Question, **more: Any) -> tuple[bool, bytes]:
    """Return whether it was a chat, and the body."""
    chat = not isinstance(question.prompt, str)
    asked = {"messages": list(question.prompt)} if chat else {"prompt": question.prompt}
    body = {"model": _MODEL, **question.sampling, **asked, **more}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        path = "/v1/chat/completions" if chat else "/v1/completions"
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    if response.status != http.HTTPStatus.OK:
        raise TrunnionError(data.decode(errors="replace"), http_status=response.status)
    return chat, data


def _plain(port: int, question: Question) -> Answer:
    chat, data = _post(port, question)
    answer = json.loads(data)
    choice = answer["choices"][0]
    text = choice["message"]["content"] if chat else choice["text"]
    return _answer(text, choice["finish_reason"], answer["usage"])


def _streamed(port: int, question: Question) -> Answer:
    chat, data = _post(port, question, stream=True, stream_options={"include_usage": True})
    text, reason = "", None
    usage: dict[str, int] = {}
    for line in data.decode().splitlines():
        if not line.startswith("data: ") or line == "data: [DONE]":
            continue
        chunk = json.loads(line.removeprefix("data: "))
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text += (choice["delta"].get("content") if chat else choice["text"]) or ""
            reason = choice["finish_reason"] or reason
    return _answer(text, reason, usage)


def _answer(text: str | None, reason: str | None, usage: dict[str, int]) -> Answer:
    return Answer(
        text=text or "",
        finish_reason=reason,
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
    )
