"""Run a batch on two replicas whose model is on a web server; print the answers as JSON."""

import json
import os
import sys

import ray

from trunnion_ray.data import ProcessorConfig, build_processor


def main():
    ray.init(
        num_cpus=4,
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {name: os.environ[name] for name in ("PYTHONPATH", "TRUNNION_CACHE")}},
    )
    try:
        processor = build_processor(ProcessorConfig(engine="files", model=sys.argv[1], concurrency=2, batch_size=4))
        rows = processor(ray.data.from_items([{"prompt": str(n)} for n in range(32)]).repartition(8)).take_all()
        print(json.dumps([row["generated_text"] for row in rows]))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
