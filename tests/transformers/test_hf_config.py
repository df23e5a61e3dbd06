"""Configuration, resources, sizes and registration, without torch."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from trunnion.capabilities import FEATURES
from trunnion.errors import ConfigError, InternalError, ModelNotFound
from trunnion.registry import validate_config
from trunnion_transformers import PLUGIN, TransformersConfig, placement
from trunnion_transformers.engine_args import OURS, known_engine_args, unknown_args_message
from trunnion_transformers.errors import load_error
from trunnion_transformers.loading import kind_of
from trunnion_transformers.sizes import CPU_CACHE_TOKENS, choose_sizes

needs_library = pytest.mark.skipif(not known_engine_args(), reason="transformers is not installed")
HEAVY = ("transformers", "torch", "peft", "ray", "vllm", "numpy")


def test_the_plugin_and_the_engine_load_nothing_heavy():
    code = (
        "import sys\n"
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"
        "import trunnion_transformers, trunnion_transformers.engine\n"
        "plugin, = trunnion_transformers.trunnion_engines()\n"
        "config = plugin.config(threads=3, device='cpu', engine_kwargs={'safety_margin': 0.2})\n"
        "print(plugin.resources(config).bundles[0].cpu)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert ran.stdout.strip() == "3.0", ran.stderr


def test_every_feature_is_classified_and_every_no_has_a_reason():
    capabilities = PLUGIN.capabilities
    assert set(capabilities.features) == set(FEATURES)
    assert [
        f for f, support in capabilities.features.items() if support == "no" and f not in capabilities.reasons
    ] == []


def test_every_field_has_a_description():
    assert all(field.description for field in TransformersConfig.model_fields.values())


@needs_library
def test_what_the_engine_sets_itself_is_a_setting_of_the_library():
    assert set(OURS) <= known_engine_args()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"engine_kwargs": {"safety_margins": 0.1}}, "did you mean 'safety_margin'"),
        ({"engine_kwargs": {"num_blocks": 8}}, "setting of its own"),
        ({"engine_kwargs": {"use_cuda_graph": True}}, "may not hold 'use_cuda_graph'"),
        ({"num_block": 4}, "num_blocks"),
        ({"page_size": 2}, "greater than or equal to 4"),
        ({"device": "tpu"}, "device"),
    ],
)
@needs_library
def test_wrong_settings_are_refused_with_a_hint(config, said):
    with pytest.raises(ConfigError, match=said):
        validate_config(TransformersConfig, config, where="engine 'transformers'")


def test_suggestions_name_the_nearest():
    assert "'safety_margin'" in unknown_args_message(["safetymargin"], ["safety_margin", "page_size"])
    assert unknown_args_message(["page_size"], ["safety_margin", "page_size"]) is None


@pytest.mark.parametrize(
    ("config", "machine", "wanted"),
    [
        ({}, ("2.13.0+cpu", True), (1.0, 0.0)),
        ({}, ("2.13.0", False), (1.0, 0.0)),
        ({}, ("2.13.0", True), (1.0, 1.0)),
        ({"device": "cuda", "threads": 2}, ("2.13.0+cpu", False), (2.0, 1.0)),
        ({"device": "cpu", "threads": 4}, ("2.13.0", True), (4.0, 0.0)),
    ],
)
def test_resources_follow_the_device(monkeypatch, tmp_path, config, machine, wanted):
    build, driver = machine
    file = tmp_path / "version"
    if driver:
        file.touch()
    monkeypatch.setattr(placement, "NVIDIA_DRIVER", file)
    monkeypatch.setattr(placement.importlib.metadata, "version", lambda name: build)
    (bundle,) = placement.resources(TransformersConfig(**config)).bundles
    assert (bundle.cpu, bundle.gpu) == wanted


def sizes(free=2**34, model_len=2048, per_token=1024, device="cpu", square=False, **config):
    return choose_sizes(
        TransformersConfig(**config),
        device=device,
        model_len=model_len,
        bytes_per_token=per_token,
        free_bytes=free,
        square=square,
    )


def test_sizes_on_a_cpu_are_small_and_fit_the_memory():
    plain = sizes()
    assert plain.num_blocks * plain.page_size == CPU_CACHE_TOKENS
    scarce = sizes(free=2**32, per_token=2**20)
    assert scarce.num_blocks * scarce.page_size == 1024
    asked = sizes(free=2**20, per_token=2**20, max_model_len=1000)
    assert 1000 <= asked.num_blocks * asked.page_size < 1032
    assert sizes(model_len=131072, max_model_len=65536).num_blocks * 32 == 65536


def test_fewer_requests_share_a_step_where_attention_costs_their_square():
    assert sizes(square=True).max_requests_per_batch < sizes(square=False).max_requests_per_batch


def test_sizes_that_are_set_hold():
    own = sizes(page_size=8, num_blocks=9, max_batch_tokens=10, max_requests_per_batch=11)
    assert (own.page_size, own.num_blocks, own.max_batch_tokens, own.max_requests_per_batch) == (8, 9, 10, 11)


def test_a_gpu_is_left_to_the_library():
    assert sizes(device="cuda").num_blocks is None
    assert sizes(device="cuda", num_blocks=7).num_blocks == 7


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["LlamaForCausalLM"], "generate"),
        (["GPT2LMHeadModel"], "generate"),
        (["BertModel"], "embed"),
        ([], "generate"),
        (["BertForSequenceClassification"], "classify"),
    ],
)
def test_auto_goes_by_the_model(tmp_path, names, wanted):
    described = SimpleNamespace(architectures=names, is_encoder_decoder=False)
    assert kind_of(str(tmp_path), described, "auto") == wanted
    assert kind_of(str(tmp_path), described, "embed") == "embed"
    (tmp_path / "modules.json").write_text("[]")
    assert kind_of(str(tmp_path), described, "auto") == ("classify" if wanted == "classify" else "embed")


def test_an_encoder_decoder_is_refused(tmp_path):
    described = SimpleNamespace(architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True)
    with pytest.raises(ConfigError, match="encoder-decoder"):
        kind_of(str(tmp_path), described, "auto")


@pytest.mark.parametrize(
    ("error", "wanted", "param"),
    [
        (OSError("x is not a local folder and is not a valid model identifier"), ModelNotFound, "model"),
        (MemoryError("Memory footprint 5 is more than available memory 4"), ConfigError, "num_blocks"),
        (ValueError("Invalid layer type: linear_attention"), ConfigError, "model"),
        (ImportError("no psutil"), InternalError, None),
        (RuntimeError("odd"), InternalError, None),
    ],
)
def test_what_loading_raises_is_mapped(error, wanted, param):
    mapped = load_error("some/model", error)
    assert (type(mapped), mapped.param) == (wanted, param)
    assert str(error) in mapped.message
