"""Serve the model through Ray's own ray.serve.llm, for benches/serving.py; runs until SIGINT.

The environment chooses its path: as it comes, or direct.
"""

from __future__ import annotations

import argparse

import ray
from ray import serve
from ray.serve.llm import LLMConfig, build_openai_app

from processes import run_until_interrupted


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="not enforce_eager")
    args = parser.parse_args()
    ray.init(num_cpus=8 * args.replicas, include_dashboard=False, log_to_driver=False)
    config = LLMConfig(
        model_loading_config={"model_id": "demo", "model_source": args.model},
        deployment_config={"num_replicas": args.replicas},
        placement_group_config={"bundles": [{"CPU": 1}]},
        engine_kwargs={"max_model_len": args.max_model_len, "enforce_eager": not args.compiled},
        log_engine_metrics=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": args.port})
    serve.run(build_openai_app({"llm_configs": [config]}))
    run_until_interrupted(ray.shutdown)


if __name__ == "__main__":
    main()
