"""Ask vLLM's AsyncLLM for what clients ask the servers, in its own process: no server at all, for benches/serving.py.

POST /run takes {"clients", "requests", "tokens", "stream", "messages"} and answers with a LoadResult; each of
``clients`` tasks renders the chat template, generates, and goes on to the next request.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from transformers import AutoTokenizer
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM

from http_client import LoadResult


class Bare:
    """The engine, its tokenizer, and the load they are put under."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(args.model)
        engine = AsyncEngineArgs(
            model=args.model, max_model_len=args.max_model_len, enforce_eager=not args.compiled, disable_log_stats=True
        )
        self.llm = AsyncLLM.from_engine_args(engine)
        self.count = 0

    async def one(self, messages: list[dict[str, str]], params: SamplingParams, result: LoadResult) -> str:
        began = last = time.perf_counter()
        self.count += 1
        text, first = "", True
        prompt = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = {"prompt_token_ids": self.tokenizer.encode(prompt, add_special_tokens=False)}
        async for output in self.llm.generate(ids, params, str(self.count)):
            now = time.perf_counter()
            (result.ttfts if first else result.gaps).append(now - (began if first else last))
            first, last = False, now
            text += output.outputs[0].text
        result.latencies.append(last - began)
        result.requests += 1
        return text

    async def load(self, request: Request) -> Response:
        body = await request.json()
        kind = RequestOutputKind.DELTA if body["stream"] else RequestOutputKind.FINAL_ONLY
        tokens = body["tokens"]
        params = SamplingParams(
            max_tokens=tokens, min_tokens=tokens, ignore_eos=True, temperature=0.0, output_kind=kind
        )
        result = LoadResult()
        asked: Iterator[int] = iter(range(body["requests"]))

        async def client() -> None:
            for index in asked:
                await self.one(body["messages"][index % len(body["messages"])], params.clone(), result)

        began, cpu = time.perf_counter(), _cpu()
        await asyncio.gather(*(client() for _ in range(body["clients"])))
        result.wall, result.client_cpu = time.perf_counter() - began, _cpu() - cpu
        return JSONResponse(asdict(result) | {"samples": []})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        params = SamplingParams(max_tokens=body["max_tokens"], temperature=body["temperature"])
        params.output_kind = RequestOutputKind.FINAL_ONLY
        text = await self.one(body["messages"], params, LoadResult())
        return JSONResponse({"choices": [{"message": {"content": text}}]})


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def health(_: Request) -> Response:
    return Response("ready")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument("--compiled", action="store_true", help="not enforce_eager")
    args = parser.parse_args()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        bare = Bare(args)  # AsyncLLM wants a running loop
        app.router.routes.extend(
            [
                Route("/run", bare.load, methods=["POST"]),
                Route("/v1/chat/completions", bare.chat, methods=["POST"]),
                Route("/health", health),
            ]
        )
        yield
        bare.llm.shutdown()

    app = Starlette(lifespan=lifespan)
    uvicorn.run(app, host="127.0.0.1", port=args.port, loop="uvloop", log_level="warning")


if __name__ == "__main__":
    main()
