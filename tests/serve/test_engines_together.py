"""One gateway, three engines: vLLM, transformers and a remote endpoint; and one that is broken, which stops none."""

import openai
import pytest

from vllm_cpu import VLLM_CPU

from .conftest import sim, wait_until

pytestmark = [pytest.mark.long, pytest.mark.ray, pytest.mark.engine, pytest.mark.timeout(600)]

ASKED = [{"role": "user", "content": "What is the capital of France?"}]


def test_engines_of_three_kinds_behind_one_gateway(proxy_lab):
    from trunnion_demo import model_path

    path = str(model_path())
    small = {"ray_actor_options": {"num_cpus": 0.5}, "env_vars": VLLM_CPU}
    endpoint = {"base_url": f"{proxy_lab.url('one')}/v1", "api_key_env": None}
    quick = {"enforce_eager": True, "max_model_len": 512}
    models = [
        {"name": "fast", "engine": "vllm", "model": path, "config": quick, **small},
        {"name": "embedded", "engine": "transformers", "model": path, **small},
        {"name": "far", "engine": "openai", "model": "m", "config": endpoint, **small},
        sim("broken", replica={"max_constructor_retry_count": 1}, tokenizer="/nowhere/at/all"),
    ]
    proxy_lab("deploy", name="mixed", app={"models": models}, timeout=120)
    try:
        wait_until(lambda: _ready(proxy_lab, "fast", "embedded", "far"), timeout=300, period=1)
        assert proxy_lab.get("mixed", "/ready").json()["models"]["broken"] is False
        with openai.OpenAI(base_url=proxy_lab.url("mixed") + "/v1", api_key="unused", max_retries=0) as api:
            for model in ("fast", "embedded"):
                made = api.chat.completions.create(model=model, messages=ASKED, temperature=0, max_tokens=40)
                assert "Paris" in made.choices[0].message.content
                pieces = api.chat.completions.create(
                    model=model, messages=ASKED, temperature=0, max_tokens=40, stream=True
                )
                assert "Paris" in "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
            far = api.chat.completions.create(model="far", messages=ASKED, max_tokens=4)
            assert far.usage.completion_tokens == 4
            with pytest.raises(openai.APIStatusError):
                api.with_options(timeout=20).chat.completions.create(model="broken", messages=ASKED)
    except openai.APITimeoutError:
        pytest.fail("a request to the broken model hangs")
    finally:
        proxy_lab("delete", name="mixed", timeout=120)


def _ready(lab, *names):
    try:
        models = lab.get("mixed", "/ready").json()["models"]
    except Exception:
        return False
    return all(models[name] for name in names)
