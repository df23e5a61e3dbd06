"""Serve OpenAI's API through Ray Serve: code written for Ray's own LLM module, with the import line changed.

Run it with ``python examples/serving.py [MODEL]``; without a model it takes the demo model.
"""

import sys

import ray
from openai import OpenAI
from ray import serve

from trunnion_demo import model_path
from trunnion_ray.serve import LLMConfig, LLMRouter, LLMServer

MODEL = sys.argv[1] if len(sys.argv) > 1 else str(model_path())

llm_config = LLMConfig(
    model_loading_config=dict(model_id="qwen-0.5b", model_source=MODEL),
    deployment_config=dict(autoscaling_config=dict(min_replicas=1, max_replicas=2)),
    accelerator_type=None,
    engine_kwargs=dict(tensor_parallel_size=2),
)
deployment = LLMServer.as_deployment(llm_config.get_serve_options(name_prefix="vLLM:")).bind(llm_config)
app = LLMRouter.as_deployment().bind([deployment])

if __name__ == "__main__":
    ray.init(num_cpus=4)
    serve.run(app)
    client = OpenAI(base_url="http://localhost:8000/v1", api_key="fake-key")
    stream = client.chat.completions.create(
        model="qwen-0.5b",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        stream=True,
    )
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()
    serve.shutdown()
    ray.shutdown()
