"""Every named setting changes what vLLM is configured with."""

import gc
import operator

import pytest

from trunnion.errors import ConfigError
from trunnion_demo import model_path
from trunnion_vllm.config import OWN_FIELDS, VLLMConfig
from trunnion_vllm.launch import configure, refuse_what_cannot_run

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("vllm_environment")]
MODEL = str(model_path())
SETTINGS = {
    "tensor_parallel_size": (2, "parallel_config.tensor_parallel_size"),
    "pipeline_parallel_size": (2, "parallel_config.pipeline_parallel_size"),
    "data_parallel_size": (2, "parallel_config.data_parallel_size"),
    "distributed_executor_backend": ("ray", "parallel_config.distributed_executor_backend"),
    "max_model_len": (77, "model_config.max_model_len"),
    "max_num_seqs": (7, "scheduler_config.max_num_seqs"),
    "max_num_batched_tokens": (2077, "scheduler_config.max_num_batched_tokens"),
    "gpu_memory_utilization": (0.07, "cache_config.gpu_memory_utilization"),
    "enforce_eager": (True, "model_config.enforce_eager"),
    "enable_prefix_caching": (False, "cache_config.enable_prefix_caching"),
    "enable_chunked_prefill": (False, "scheduler_config.enable_chunked_prefill"),
    "runner": ("pooling", "model_config.runner"),
    "seed": (7, "model_config.seed"),
    "tokenizer": (MODEL + "/", "model_config.tokenizer"),
    "revision": ("v7", "model_config.revision"),
    "trust_remote_code": (True, "model_config.trust_remote_code"),
}
ELSEWHERE = {"dtype", "quantization", "disable_log_stats", "max_loras", "max_lora_rank"}


def made_of(**settings):
    return configure(MODEL, VLLMConfig(**settings))


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_reaches_vllm(name):
    value, place = SETTINGS[name]
    read = operator.attrgetter(place)
    _, plain = made_of()
    _, changed = made_of(**{name: value})
    assert read(changed) == value
    assert read(plain) != value


def test_no_setting_is_left_out():
    assert set(SETTINGS) | ELSEWHERE == set(VLLMConfig.model_fields) - OWN_FIELDS


def test_the_number_type_is_the_one_asked_for():
    for name in ("float32", "bfloat16"):
        assert str(made_of(dtype=name)[1].model_config.dtype) == f"torch.{name}"


def test_a_quantization_that_does_not_fit_is_refused_by_vllm():
    with pytest.raises(ConfigError, match="awq"):
        made_of(quantization="awq")


def test_batches_take_the_larger_defaults_of_the_offline_class():
    (_, serve), (_, batch) = made_of(usage="serve"), made_of(usage="batch")
    assert batch.scheduler_config.max_num_batched_tokens > serve.scheduler_config.max_num_batched_tokens


def test_statistics_are_left_out_unless_wanted():
    assert made_of()[0].disable_log_stats is True
    assert made_of(disable_log_stats=False)[0].disable_log_stats is False


def test_further_arguments_reach_vllm_config_objects_among_them():
    speculative = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 2}
    _, config = made_of(engine_kwargs={"block_size": 64, "speculative_config": speculative})
    assert config.cache_config.block_size == 64
    assert config.speculative_config.num_speculative_tokens == 3


def test_room_for_adapters_is_made_without_any():
    assert made_of()[1].lora_config is None
    lora = made_of(max_loras=3, max_lora_rank=32)[1].lora_config
    assert (lora.max_loras - 1, lora.max_lora_rank) == (3, 32)  # a spare slot, on a CPU


@pytest.mark.parametrize(
    ("threads", "bind", "settings", "inside"),
    [
        ("1", "nobind", {}, True),
        ("4", "nobind", {"distributed_executor_backend": "uni"}, False),
        ("1", "nobind", {"distributed_executor_backend": "mp"}, False),
        ("1", "nobind", {"tensor_parallel_size": 2}, False),
        ("1", "0", {}, False),
        (None, "nobind", {}, False),
    ],
)
def test_a_lone_rank_runs_inside_the_engine_where_openmp_is_set_up(monkeypatch, threads, bind, settings, inside):
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", bind)
    if threads is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    backend = made_of(**settings)[1].parallel_config.distributed_executor_backend
    assert (backend != "mp") == inside
    assert inside == str(backend).endswith("UniProcExecutor")


@pytest.mark.asyncio(loop_scope="session")
async def test_the_heap_is_frozen_once_started(engine):
    assert gc.get_freeze_count() > 0


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"pipeline_parallel_size": 2, "enforce_eager": True}, "pipeline_parallel_size"),
        ({"tensor_parallel_size": 2, "distributed_executor_backend": "ray"}, "distributed_executor_backend"),
    ],
)
def test_what_a_cpu_build_fails_at_later_is_refused_at_once(settings, param):
    with pytest.raises(ConfigError, match="CPU build") as caught:
        refuse_what_cannot_run(made_of(**settings)[1])
    assert caught.value.param == param
