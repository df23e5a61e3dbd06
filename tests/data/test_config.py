"""The configuration: what it takes, refuses, and what it makes of it."""

import pytest
from pydantic import ValidationError

from trunnion import Bundle
from trunnion.errors import ConfigError, PluginNotFound
from trunnion_ray.data import ProcessorConfig, build_processor
from trunnion_ray.data.placement import describe, placement, resources_of


@pytest.mark.parametrize("concurrency", [0, -1, (2, 1), (0, 2)])
def test_concurrency_must_be_sensible(concurrency):
    with pytest.raises(ValidationError, match="concurrency"):
        ProcessorConfig(engine="sim", concurrency=concurrency)


def test_concurrency_is_a_number_or_a_range():
    assert ProcessorConfig(engine="sim", concurrency=3).replicas == (3, 3)
    assert ProcessorConfig(engine="sim", concurrency=(1, 4)).replicas == (1, 4)


def test_a_replica_holds_about_two_thousand_rows_unless_told_otherwise():
    assert ProcessorConfig(engine="sim", batch_size=128).calls == 16
    assert ProcessorConfig(engine="sim", batch_size=1).calls == 64
    assert ProcessorConfig(engine="sim", batch_size=100_000).calls == 4
    assert ProcessorConfig(engine="sim", max_concurrent_batches=3).calls == 3
    assert ProcessorConfig(engine="sim", max_concurrent_batches=8).in_flight == 12
    assert ProcessorConfig(engine="sim", max_tasks_in_flight_per_actor=20).in_flight == 20


def test_too_few_blocks_in_flight_are_warned_of(caplog):
    ProcessorConfig(engine="sim", max_concurrent_batches=8, max_tasks_in_flight_per_actor=4)
    assert "max_tasks_in_flight_per_actor" in caplog.text


def test_an_engine_is_chosen_where_none_is_named():
    spec = ProcessorConfig(model="demo", config={"base_url": "http://localhost:1/v1"}).pipeline_spec()
    assert spec.engine.engine == "openai"


def test_unknown_fields_are_refused():
    with pytest.raises(ValidationError, match="batchsize"):
        ProcessorConfig(engine="sim", batchsize=3)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"config": {"slot": 3}}, "slot"),
        ({"sampling": {"temprature": 1}}, "sampling.temprature"),
        ({"columns": {"promt": "text"}}, "columns"),
    ],
)
def test_wrong_settings_are_refused_by_name_before_anything_runs(fields, param):
    with pytest.raises(ConfigError if param != "sampling.temprature" else Exception) as caught:
        build_processor(ProcessorConfig(engine="sim", **fields))
    assert caught.value.param == param


def test_an_engine_must_exist():
    with pytest.raises(PluginNotFound, match="sim"):
        build_processor(ProcessorConfig(engine="simm"))


def test_hooks_that_are_set_must_exist():
    with pytest.raises(PluginNotFound, match="no hooks plugin is called 'absent'"):
        build_processor(ProcessorConfig(engine="sim", hooks={"absent": {"limit": 1}}))


def test_functions_must_be_functions():
    with pytest.raises(ConfigError, match="preprocess"):
        build_processor(ProcessorConfig(engine="sim"), preprocess="upper")
    with pytest.raises(ConfigError, match="ProcessorConfig"):
        build_processor({"engine": "sim"})
    with pytest.raises(ConfigError, match="builder_kwargs"):
        build_processor(ProcessorConfig(engine="sim"), builder_kwargs={"preprocess": len})


def placed(**fields):
    config = ProcessorConfig(engine="sim", **fields)
    return placement(resources_of(config, config.pipeline_spec()))


def test_one_bundle_is_asked_for_by_the_actor_itself():
    assert placed() == {"num_cpus": 1.0}
    bundle = Bundle(cpu=2, gpu=4, memory=10, custom={"disk": 1})
    assert placed(bundles=(bundle,), accelerator_type="A10G") == {
        "num_cpus": 2,
        "num_gpus": 4,
        "memory": 10,
        "accelerator_type": "A10G",
        "resources": {"disk": 1},
    }


@pytest.mark.parametrize("kind", [None, "CPU", "cpu"])
def test_any_node_will_do_for_a_cpu(kind):
    assert placed(accelerator_type=kind) == {"num_cpus": 1.0}


def test_several_bundles_get_a_placement_group():
    made = placed(bundles=(Bundle(), Bundle()), strategy="SPREAD")
    assert made["num_cpus"] == 0
    assert callable(made["ray_remote_args_fn"])


def test_a_plugin_says_what_a_replica_takes():
    config = ProcessorConfig(engine="vllm", model="m", config={"tensor_parallel_size": 2, "device": "cuda"})
    assert placement(resources_of(config, config.pipeline_spec())) == {"num_cpus": 1.0, "num_gpus": 2.0}


def test_the_plan_fits_on_a_line():
    processor = build_processor(ProcessorConfig(engine="sim", concurrency=(1, 3)), postprocess=dict)
    text = processor.explain()
    assert "\n" not in text
    assert "1 to 3 replica(s) of 1 CPU" in text
    assert "postprocess" in text
    assert "preprocess" not in text
    config = ProcessorConfig(engine="sim", bundles=(Bundle(), Bundle()), strategy="SPREAD")
    assert describe(resources_of(config, config.pipeline_spec())) == "a placement group of 2 x 1 CPU, SPREAD"


def test_a_batch_starts_from_what_the_plugin_advises():
    from trunnion import get_registry

    advised = get_registry().engine("vllm").batch_config
    assert advised
    assert ProcessorConfig(engine="vllm", model="m").pipeline_spec().engine.config == advised
    own = ProcessorConfig(engine="vllm", model="m", config={"usage": "serve"})
    assert own.pipeline_spec().engine.config == {"usage": "serve"}
