"""Run an engine of some shape over prompts; print what it answered and what it was made of, as JSON.

Started by tests as a script of its own: how threads are bound is read once per process.
"""

import asyncio
import contextlib
import json
import multiprocessing
import sys

import psutil

from trunnion.completion import collect
from trunnion.errors import TrunnionError
from trunnion.requests import GenerateRequest, SamplingParams, TextPrompt, TokensPrompt
from trunnion_vllm.config import VLLMConfig
from trunnion_vllm.engine import VLLMEngine


def titles():
    """Return the names of the engine's processes, as vLLM titles them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):  # gone, or dead and not reaped yet
            found.append(" ".join(process.cmdline()).strip())
    return sorted(title for title in found if "VLLM::" in title)


async def main(model, config, prompts):
    engine = VLLMEngine(model, VLLMConfig(**config))
    try:
        info = await engine.start()
    except TrunnionError as error:
        seen = {"error": type(error).__name__, "message": str(error)}
    else:
        sampling = SamplingParams(temperature=0.0, max_tokens=12, ignore_eos=True)
        requests = [GenerateRequest(prompt=TextPrompt(text=prompt), sampling=sampling) for prompt in prompts]
        answers = await asyncio.gather(*(collect(engine.generate(request)) for request in requests))
        await engine.check_health()
        seen = {
            "answers": [list(answer.choices[0].token_ids) for answer in answers],
            "titles": titles(),
            "data_parallel": info.data_parallel,
            "details": {key: info.details[key] for key in ("tensor_parallel", "pipeline_parallel")},
        }
        if config.get("kv_events"):
            ranks = set()
            long = [
                requests[0].with_(prompt=TokensPrompt(token_ids=[10 + n] * 300), request_id=str(n)) for n in range(8)
            ]
            await asyncio.gather(*(collect(engine.generate(request)) for request in long))  # blocks are to be filled
            async with asyncio.timeout(60):
                async for event in engine.kv_events():
                    ranks.add(event["rank"])
                    if len(ranks) == info.data_parallel:
                        break
            seen["event_ranks"] = sorted(ranks)
    finally:
        await engine.stop()
    seen["left"] = titles() + [child.name for child in multiprocessing.active_children()]
    print("SEEN " + json.dumps(seen), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])))
