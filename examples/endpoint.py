"""Answer a Ray Data batch over an OpenAI-compatible endpoint, such as ``trunnion serve MODEL`` or ``vllm serve MODEL``.

Run it with ``python examples/endpoint.py [BASE_URL]``; the endpoint serves one model, whatever its name.
"""

import sys

import ray

from trunnion_ray.data import ProcessorConfig, build_processor

BASE_URL = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000/v1"

questions = [{"question": f"What is the capital of {land}?"} for land in ("France", "Italy", "Spain", "Japan")]
processor = build_processor(
    ProcessorConfig(engine="openai", config={"base_url": BASE_URL}, sampling={"max_tokens": 40}),
    preprocess=lambda row: {"messages": [{"role": "user", "content": row["question"]}]},
    postprocess=lambda row: {"question": row["question"], "answer": row["generated_text"]},
)

if __name__ == "__main__":
    processor(ray.data.from_items(questions)).show()
