"""The plugin on Ray's workers, in a batch and in a service; they find it as it is installed."""

import pytest
from conftest import REFUSES_VALUES, free_port
from serving import ECHO, MESSAGES, TEL, check

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def ray():
    import ray

    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False,
        runtime_env={"env_vars": {"RAY_USAGE_STATS_ENABLED": "0"}},
    )  # fmt: skip
    yield ray
    ray.shutdown()


def test_a_batch(ray):
    import ray.data
    from trunnion_ray.data import ProcessorConfig, build_processor

    ray.data.DataContext.get_current().enable_progress_bars = False
    settings = {"default_region": "US", "allow": ["lab@example.com"]}
    config = ProcessorConfig(engine="sim", config=REFUSES_VALUES, hooks={"redact": settings}, batch_size=8)
    prompts = [f"row {i} of user{i}@example.com, 650-253-{i:04d}" for i in range(32)]
    rows = [{"id": i, "prompt": prompt} for i, prompt in enumerate(prompts)]
    rows += [{"id": 32, "prompt": "lab@example.com passes, so the engine refuses"}, {"id": 33, "messages": MESSAGES}]
    out = sorted(build_processor(config)(ray.data.from_items(rows)).take_all(), key=lambda row: row["id"])
    assert len(out) == len(rows)
    assert [row["error"] for row in out[:32]] == [None] * 32
    assert [row["generated_text"].strip() for row in out[:32]] == prompts
    assert out[32]["error"]["code"] == "overloaded"
    assert out[33]["generated_text"].strip() == ECHO
    assert TEL in ECHO


@pytest.mark.usefixtures("ray")
def test_a_service():
    from ray import serve
    from trunnion_ray.serve import ModelConfig, build_openai_app, run

    port = free_port()
    config = ModelConfig(
        name="m", engine="sim", config=REFUSES_VALUES, hooks={"redact": {}}, ray_actor_options={"num_cpus": 0.1}
    )
    try:
        run(build_openai_app([config]), topology="proxy", port=port)
        check(f"http://127.0.0.1:{port}")
    finally:
        serve.shutdown()
