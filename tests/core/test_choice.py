"""The choice of an engine: what is installed, what hardware there is, what the model needs."""

import json

import pytest

from trunnion import API_VERSION
from trunnion.choice import choose_engine
from trunnion.errors import PluginNotFound
from trunnion.suitability import Machine, ModelFacts

LAPTOP, NODE = Machine(cpus=8, gpus=0), Machine(cpus=64, gpus=8)
SUITED = """
from trunnion import Capabilities, EnginePlugin, EngineQuestion, PluginConfig, Suitability, hookimpl


class Config(PluginConfig):
    speed: int = 1


def suits(question: EngineQuestion) -> Suitability:
    if question.machine.gpus:
        return Suitability(score=100, reason="made for the GPU that is here")
    if question.model is not None and question.model.quantization:
        return Suitability(score=0, reason=f"{question.model.quantization} weights want a GPU")
    return Suitability(score=30, reason="slow without a GPU")


@hookimpl
def trunnion_engines():
    return [
        EnginePlugin(
            name="big",
            factory="a:b",
            config=Config,
            suits=suits,
            hardware=("cpu", "gpu"),
            capabilities=Capabilities.of(yes=["adapter"]),
        )
    ]
"""
SMALL = """
from trunnion import Capabilities, EnginePlugin, Suitability, hookimpl


@hookimpl
def trunnion_engines():
    return [
        EnginePlugin(
            name="small",
            factory="a:b",
            suits=lambda question: Suitability(score=50, reason="made for a CPU"),
            capabilities=Capabilities.of(yes=["sampling.seed"], protocols=["embeds/1"]),
        )
    ]
"""


@pytest.fixture
def registry(site):
    site.add("trunnion-big", {"big": "trunnion_big"}, trunnion_big=SUITED)
    site.add("trunnion-small", {"small": "trunnion_small"}, trunnion_small=SMALL)
    site.add("trunnion-bad", {"bad": "trunnion_bad"}, trunnion_bad="raise RuntimeError('broken wheel')")
    site.engine("trunnion-gpu", name="gpu_only", extra="hardware=('gpu',)")
    return site.registry()


def test_the_hardware_decides(registry):
    on_laptop = choose_engine("m", registry=registry, machine=LAPTOP)
    assert (on_laptop.engine, on_laptop.reason) == ("small", "made for a CPU")
    assert on_laptop.against == {
        "bad": "failed: RuntimeError: broken wheel",
        "big": "slow without a GPU, which ranks lower",
        "gpu_only": "it needs a GPU, and there is none",
    }
    assert choose_engine("m", registry=registry, machine=NODE).engine == "big"


def test_needs_and_settings_decide(registry):
    chosen = choose_engine("m", registry=registry, machine=LAPTOP, needs=["adapter"])
    assert chosen.engine == "big"
    assert chosen.against["small"] == "it has no adapter"
    assert choose_engine("m", registry=registry, machine=NODE, needs=["embeds/1"]).engine == "small"
    chosen = choose_engine("m", {"speed": 3}, registry=registry, machine=LAPTOP)
    assert chosen.engine == "big"
    assert "has no setting 'speed'" in chosen.against["small"]


def test_the_model_decides(registry, tmp_path):
    settings = {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "awq"}}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(PluginNotFound) as caught:
        choose_engine(str(tmp_path), {"speed": 1}, registry=registry, machine=LAPTOP)
    assert "big: awq weights want a GPU" in str(caught.value)


@pytest.mark.parametrize("version", ["(1, 0)", "(1, 1)", "API_VERSION"])
def test_an_engine_that_does_not_say_what_it_suits_is_taken_only_where_it_is_named(site, version):
    more = f"summary='A toy', hardware=('cpu', 'gpu'), api_version={version}"
    site.engine("trunnion-toy", name="toy", extra=more.replace("API_VERSION", str(API_VERSION)))
    registry = site.registry()
    for machine in (LAPTOP, NODE):
        with pytest.raises(PluginNotFound, match="toy: it does not say what it suits; name it to use it") as caught:
            choose_engine("m", registry=registry, machine=machine)
        assert "A toy" not in str(caught.value)
    assert registry.engine_spec("toy", "m").engine == "toy"


def test_the_reason_for_the_choice_is_what_it_said_of_itself(registry, site):
    site.engine("trunnion-toy", name="toy", extra="summary='A toy'")
    chosen = choose_engine("m", registry=site.registry(), machine=NODE)
    assert (chosen.engine, chosen.reason) == ("big", "made for the GPU that is here")
    assert chosen.against["toy"] == "it does not say what it suits; name it to use it"


def test_auto_in_a_spec_is_the_chosen_engine(registry, monkeypatch):
    monkeypatch.setattr(Machine, "here", lambda: NODE)
    spec = registry.engine_spec("auto", "m", {"speed": 2})
    assert (spec.engine, spec.config) == ("big", {"speed": 2})
    assert registry.engine_spec("auto", "m", machine=LAPTOP).engine == "small"


def test_what_can_be_read_of_a_model(tmp_path):
    assert ModelFacts.of("org/name") == ModelFacts(reference="org/name")
    (tmp_path / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    (tmp_path / "model.safetensors").touch()
    facts = ModelFacts.of(str(tmp_path))
    assert (facts.local, facts.model_type, facts.generates) == (True, "bert", False)
    assert facts.weights == {".safetensors"}
    (tmp_path / "config.json").write_text("[")
    assert ModelFacts.of(str(tmp_path)).generates


@pytest.mark.parametrize(("visible", "seen"), [("", 0), ("-1", 0), ("0,1", 2), ("0,1,2,3,4", 4)])
def test_gpus_that_the_environment_hides_are_not_there(monkeypatch, visible, seen):
    from trunnion import suitability

    monkeypatch.setattr(suitability, "_nvidia", lambda: 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert Machine.here().gpus == seen


def test_a_model_is_asked_for_where_one_would_do():
    with pytest.raises(PluginNotFound, match="without a model: name one, by path or by name, for transformers, vllm"):
        choose_engine()
