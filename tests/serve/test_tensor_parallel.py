"""Two replicas of two ranks each, on CPUs: every rank is there, and the answers are right."""

import concurrent.futures

import psutil
import pytest

from vllm_cpu import VLLM_CPU

from .conftest import wait_until

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(900)]

ENVIRONMENT = {**VLLM_CPU, "VLLM_CPU_OMP_THREADS_BIND": "0|1"}
LANDS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo"}


def test_two_replicas_of_two_ranks(proxy_lab):
    from trunnion_demo import model_path

    model = {
        "name": "m",
        "engine": "vllm",
        "model": str(model_path()),
        "config": {"tensor_parallel_size": 2, "enforce_eager": True, "max_model_len": 512},
        "env_vars": ENVIRONMENT,
        "num_replicas": 2,
        "canary_period_s": None,
    }
    proxy_lab("run", name="ranks", app={"models": [model]}, timeout=600)
    try:
        pids = wait_until(lambda: proxy_lab("pids", name="ranks")["m"], timeout=60)
        assert len(pids) == 2
        for pid in pids:
            workers = [p for p in psutil.Process(pid).children(recursive=True) if "Worker" in " ".join(p.cmdline())]
            assert len(workers) == 2, [p.cmdline() for p in psutil.Process(pid).children(recursive=True)]

        def ask(land):
            message = {"role": "user", "content": f"What is the capital of {land}?"}
            body = {"model": "m", "messages": [message], "temperature": 0, "max_tokens": 40}
            return land, proxy_lab.post("ranks", body).json()["choices"][0]["message"]["content"]

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            for land, text in pool.map(ask, [*LANDS] * 8):
                assert LANDS[land] in text
        assert all(psutil.Process(pid).cpu_times().user > 0 for pid in pids)
    finally:
        proxy_lab("delete", name="ranks", timeout=120)
