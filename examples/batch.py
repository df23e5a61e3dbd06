"""Answer a Ray Data batch: code written for Ray's own LLM module, with the import line changed.

Run it with ``python examples/batch.py [MODEL]``; without a model it takes the demo model.
"""

import sys

import ray

from trunnion_demo import model_path
from trunnion_ray.data import build_llm_processor, vLLMEngineProcessorConfig

MODEL = sys.argv[1] if len(sys.argv) > 1 else str(model_path())

config = vLLMEngineProcessorConfig(
    model=MODEL,
    engine_kwargs={
        "enable_chunked_prefill": True,
        "max_num_batched_tokens": 4096,
        "max_model_len": 1024,
    },
    concurrency=1,
    batch_size=64,
)
processor = build_llm_processor(
    config,
    preprocess=lambda row: dict(
        messages=[
            {"role": "system", "content": "You are a bot that responds with haikus."},
            {"role": "user", "content": row["item"]},
        ],
        sampling_params=dict(temperature=0.3, max_tokens=250),
    ),
    postprocess=lambda row: dict(answer=row["generated_text"], **row),
)

if __name__ == "__main__":
    ds = ray.data.from_items(["Start of the haiku is: Complete this for me..."])
    ds = processor(ds)
    ds.show(limit=1)
