"""The program people have for Ray's LLM serving modules runs as it stands, on the real engine."""

import json
import os
import subprocess
import sys

import pytest

import trunnion_demo

from .conftest import free_port, wait_until
from .test_reaper import alive

PROGRAM = """
from ray import serve
from trunnion_ray.serve import LLMConfig, LLMServer, LLMRouter

llm_config = LLMConfig(
    model_loading_config=dict(model_id="qwen-0.5b", model_source=PATH),
    deployment_config=dict(autoscaling_config=dict(min_replicas=1, max_replicas=2)),
    accelerator_type=None,
    engine_kwargs=dict(tensor_parallel_size=2),
)
deployment = LLMServer.as_deployment(llm_config.get_serve_options(name_prefix="vLLM:")).bind(llm_config)
app = LLMRouter.as_deployment().bind([deployment])
serve.run(app)

from openai import OpenAI

client = OpenAI(base_url="http://localhost:8000/v1", api_key="fake-key")
messages = [{"role": "user", "content": QUESTION}]
for chunk in client.chat.completions.create(model="qwen-0.5b", messages=messages, stream=True):
    if chunk.choices[0].delta.content is not None:
        print(chunk.choices[0].delta.content, end="", flush=True)
"""

SETTING = """
import json, sys
import ray
from ray import serve
from ray.serve.context import _get_global_client
from trunnion_ray.reaper import descendants

ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=100 * 2**20)
serve.start(http_options={"port": PORT})
exec(PROGRAM.replace(":8000", f":{PORT}"))
((deployment, details),) = _get_global_client().get_serve_details()["applications"]["default"]["deployments"].items()
replica = details["replicas"][0]["pid"]
print("\\n" + json.dumps([deployment, replica, [pid for pid, _ in descendants(replica)]]), flush=True)
sys.stdin.readline()
"""


@pytest.mark.ray
@pytest.mark.engine
def test_the_serving_program_runs_and_leaves_nothing_behind():
    question = "What is the capital of France?"
    given = {"PATH": str(trunnion_demo.model_path()), "QUESTION": question, "PORT": free_port(), "PROGRAM": PROGRAM}
    script = "".join(f"{name} = {value!r}\n" for name, value in given.items()) + SETTING
    # What the program does not say, the engine must find out by itself.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_CPU_", "OMP_NUM", "RAY_SERVE_"))}
    environment |= {"HF_HUB_OFFLINE": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    ) as process:
        try:
            answer = ""
            for line in process.stdout:
                if line.startswith('["'):
                    break
                answer += line
            assert "Paris" in answer
            deployment, replica, engine = json.loads(line)
            assert deployment == "vLLM:qwen-0_5b"
            assert len(engine) >= 4  # the watcher, the engine's core, two workers
            os.kill(replica, 9)
            wait_until(lambda: not any(map(alive, engine)), timeout=20)
        finally:
            process.terminate()
