"""Serve the model through Ray Serve, for benches/serving.py; runs until SIGINT."""

from __future__ import annotations

import argparse

import ray

from processes import run_until_interrupted
from trunnion_ray.serve import ModelConfig, build_openai_app
from trunnion_ray.serve import run as serve_run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--topology", default="direct")
    parser.add_argument("--max-model-len", type=int, default=1024)
    args = parser.parse_args()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    config = {"max_model_len": args.max_model_len, "enforce_eager": True}
    model = ModelConfig(name="demo", engine="vllm", model=args.model, config=config)
    serve_run(build_openai_app([model]), host="127.0.0.1", port=args.port, topology=args.topology)
    run_until_interrupted(ray.shutdown)


if __name__ == "__main__":
    main()
