"""Serve the model through Ray Serve, for benches/serving.py; runs until SIGINT."""

from __future__ import annotations

import argparse

import ray

from processes import run_until_interrupted
from trunnion_demo import adapter_paths
from trunnion_http import HTTPSettings
from trunnion_ray.serve import ModelConfig, build_openai_app
from trunnion_ray.serve import run as serve_run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--topology", default="direct")
    parser.add_argument("--max-model-len", type=int, default=1024)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="not enforce_eager")
    parser.add_argument("--guarded", action="store_true", help="API keys, and hooks that look at each request")
    parser.add_argument("--adapter", action="store_true", help="serve the demo model's adapter as well")
    args = parser.parse_args()
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    config = {"max_model_len": args.max_model_len, "enforce_eager": not args.compiled}
    adapters = {name: str(path) for name, path in adapter_paths().items()} if args.adapter else {}
    limits = {"rate_limits": {"requests_per_minute": 1e9, "tokens_per_minute": 1e12}} if args.guarded else {}
    model = {"engine": "vllm", "model": args.model, "config": config, "adapters": adapters, "hooks": limits}
    models = [ModelConfig(name="demo", num_replicas=args.replicas, **model)]
    if args.topology == "gateway":
        models.append(ModelConfig(name="other", engine="sim", ray_actor_options={"num_cpus": 0.1}))
    http = HTTPSettings(api_keys_env="BENCH_KEYS") if args.guarded else None
    topology = "auto" if args.topology == "gateway" else args.topology
    serve_run(build_openai_app(models, http=http), host="127.0.0.1", port=args.port, topology=topology)
    run_until_interrupted(ray.shutdown)


if __name__ == "__main__":
    main()
