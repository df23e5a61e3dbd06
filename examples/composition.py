"""Serve a program over several models as one: two writers draft, a judge chooses, the answer streams out.

Run it with ``python examples/composition.py``. The models are simulated, so that it starts at once; any engine will do.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from openai import OpenAI

import trunnion_ray.serve as ts
from trunnion import GenerateEvent, GenerateRequest


async def committee(request: GenerateRequest, models: Mapping[str, ts.Voice]) -> AsyncIterator[str | GenerateEvent]:
    """Let both writers draft, and stream what the judge likes better. A program is an async generator."""
    question = request.prompt.messages[-1]["content"]
    short = replace(request, sampling=replace(request.sampling, max_tokens=12))
    drafts = await asyncio.gather(models["prose"].complete(short), models["verse"].complete(short))
    texts = [draft.text for draft in drafts]
    scores = [score.value for score in await models["judge"].score(question, texts)]
    winner = "verse" if scores[1] > scores[0] else "prose"
    yield f"[{winner}] "
    async for event in models[winner].generate(request):
        yield event


app = ts.compose(
    "committee",
    committee,
    [
        ts.ModelConfig(name="prose", engine="sim", config={"seed": 1}, ray_actor_options={"num_cpus": 0.1}),
        ts.ModelConfig(name="verse", engine="sim", config={"seed": 2}, ray_actor_options={"num_cpus": 0.1}),
        ts.ModelConfig(name="judge", engine="sim", config={"seed": 3}, ray_actor_options={"num_cpus": 0.1}),
    ],
)

if __name__ == "__main__":
    ts.run(app, port=8000)
    client = OpenAI(base_url="http://localhost:8000/v1", api_key="none")
    stream = client.chat.completions.create(
        model="committee",
        messages=[{"role": "user", "content": "What is the sea like?"}],
        max_tokens=40,
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        if chunk.usage is not None:
            print(f"\n({chunk.usage.completion_tokens} tokens, drafts included)")
