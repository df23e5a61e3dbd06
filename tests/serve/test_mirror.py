"""Every field of Ray's own configurations does what its rule says, or is refused by name."""

import inspect
from pathlib import Path

import pytest
from ray import serve

from trunnion.errors import ConfigError, PluginNotFound, UnsupportedFeature
from trunnion_ray import serve as ours
from trunnion_ray.serve import LLMConfig, LLMRouter, LLMServer, LLMServingArgs, build_llm_deployment, build_openai_app
from trunnion_ray.serve.mirror.rules import DEPLOYMENT_REFUSED, EXPERIMENTAL, RULES, Mapped, Refused

NAMES_2_44 = {
    "LLMConfig",
    "LLMServingArgs",
    "ModelLoadingConfig",
    "CloudMirrorConfig",
    "LoraConfig",
    "build_llm_deployment",
    "build_openai_app",
    "LLMServer",
    "LLMRouter",
}
NAMES_2_60 = NAMES_2_44 - {"LLMRouter"} | {"build_pd_openai_app", "build_dp_deployment", "build_dp_openai_app"}
FIELDS_2_44 = {
    "LLMConfig": "runtime_env model_loading_config llm_engine engine_kwargs accelerator_type lora_config "
    "deployment_config",
    "ModelLoadingConfig": "model_id model_source tokenizer_source",
    "LoraConfig": "dynamic_lora_loading_path max_num_adapters_per_replica download_timeout_s max_download_tries",
    "CloudMirrorConfig": "bucket_uri extra_files",
    "LLMServingArgs": "llm_configs",
}


def config(engine="sim", **fields):
    fields.setdefault("model_loading_config", {"model_id": "m", "model_source": "/models/m"})
    return LLMConfig(llm_engine=engine, **fields)


def vllm(**fields):
    return config("vLLM", **fields)


def real_classes():
    llm = pytest.importorskip("ray.serve.llm", exc_type=ImportError)
    return {name: getattr(llm, name) for name in RULES}


def test_all_names_of_both_generations_are_there():
    assert set(ours.__all__) >= NAMES_2_44 | NAMES_2_60


@pytest.mark.engine
def test_every_field_of_the_installed_ray_has_a_rule():
    for name, cls in real_classes().items():
        assert set(cls.model_fields) == set(RULES[name]), name


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_a_field_and_old_fields_are_kept(name):
    cls = getattr(ours, name)
    assert set(cls.model_fields) == set(RULES[name])
    assert set(FIELDS_2_44[name].split()) <= set(RULES[name])
    with pytest.raises(ValueError, match="no_such_field"):
        cls.model_validate({"no_such_field": 1})


REFUSED_VALUES = {
    "LLMConfig": lambda field: config(**{field: "x"}),
    "ModelLoadingConfig": lambda field: ours.ModelLoadingConfig(model_id="m", **{field: "x"}),
    "LoraConfig": lambda field: ours.LoraConfig(**{field: 3}),
    "CloudMirrorConfig": lambda field: ours.CloudMirrorConfig(**{field: [] if field == "extra_files" else "s3://x"}),
    "LLMServingArgs": lambda field: LLMServingArgs(llm_configs=[config()], **{field: {}}),
}


@pytest.mark.parametrize(
    ("owner", "field"),
    [(owner, field) for owner, rules in RULES.items() for field, rule in rules.items() if isinstance(rule, Refused)],
)
def test_refused_fields_are_refused_by_name(owner, field):
    with pytest.raises(ConfigError, match=field) as caught:
        REFUSED_VALUES[owner](field)
    assert caught.value.param == field
    assert RULES[owner][field].reason in caught.value.message


@pytest.fixture
def adapters(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}")
    (tmp_path / "not-one").mkdir()
    return str(tmp_path)


def engine_config(made):
    return made.to_model_config().config


def actor(made):
    return made.get_serve_options()["ray_actor_options"]


MAPPED = {
    ("LLMConfig", "runtime_env"): lambda _: (
        actor(config(runtime_env={"env_vars": {"A": "1"}}))["runtime_env"] == {"env_vars": {"A": "1"}}
    ),
    ("LLMConfig", "model_loading_config"): lambda _: config().to_model_config().model == "/models/m",
    ("LLMConfig", "llm_engine"): lambda _: (
        (vllm().to_model_config().engine, config().to_model_config().engine) == ("vllm", "sim")
    ),
    ("LLMConfig", "engine_kwargs"): lambda _: (
        engine_config(vllm(engine_kwargs={"max_model_len": 64, "block_size": 16}))
        == {"max_model_len": 64, "engine_kwargs": {"block_size": 16}}
    ),
    ("LLMConfig", "accelerator_type"): lambda _: (
        actor(vllm(accelerator_type="A10", engine_kwargs={"tensor_parallel_size": 2}))
        == {"num_cpus": 1.0, "num_gpus": 2.0, "accelerator_type": "A10G"}
        and actor(vllm(accelerator_type="CPU", engine_kwargs={"tensor_parallel_size": 2})) == {"num_cpus": 2.0}
    ),
    ("LLMConfig", "accelerator_config"): lambda _: (
        engine_config(vllm(accelerator_config={"kind": "cpu"}))["device"] == "cpu"
        and engine_config(vllm(accelerator_config={"kind": "gpu"}))["device"] == "cuda"
    ),
    ("LLMConfig", "placement_group_config"): lambda _: (
        (
            vllm(
                placement_group_config={"bundle_per_worker": {"CPU": 1, "GPU": 1}, "strategy": "SPREAD"},
                accelerator_config={"kind": "gpu"},
                engine_kwargs={"tensor_parallel_size": 2, "distributed_executor_backend": "ray"},
            ).get_serve_options()
            | {"logging_config": None}
        ).items()
        >= {"placement_group_bundles": [{"CPU": 1.0, "GPU": 1.0}] * 2, "placement_group_strategy": "SPREAD"}.items()
    ),
    ("LLMConfig", "lora_config"): lambda folder: (
        set(config(lora_config={"dynamic_lora_loading_path": folder}).to_model_config().adapters) == {"a", "b"}
    ),
    ("LLMConfig", "deployment_config"): lambda _: (
        config(deployment_config={"max_ongoing_requests": 7, "num_replicas": 2, "name": "mine"})
        .get_serve_options(name_prefix="p:")
        .items()
        >= {"max_ongoing_requests": 7, "num_replicas": 2, "name": "p:mine"}.items()
    ),
    ("LLMConfig", "experimental_configs"): lambda _: (
        _gateway(LLMRouter.as_deployment([config(experimental_configs={"num_ingress_replicas": 3})])) == 3
    ),
    ("LLMConfig", "log_engine_metrics"): lambda _: engine_config(vllm(log_engine_metrics=False))["disable_log_stats"],
    ("ModelLoadingConfig", "model_id"): lambda _: config().to_model_config().name == "m",
    ("ModelLoadingConfig", "model_source"): lambda _: (
        vllm(model_loading_config={"model_id": "hub/name"}).to_model_config().model == "hub/name"
    ),
    ("ModelLoadingConfig", "tokenizer_source"): lambda _: (
        engine_config(vllm(model_loading_config={"model_id": "m", "tokenizer_source": "t"}))["tokenizer"] == "t"
    ),
    ("LoraConfig", "dynamic_lora_loading_path"): lambda folder: (
        config(lora_config={"dynamic_lora_loading_path": folder}).to_model_config().adapters["a"]
        == str(Path(folder) / "a")
    ),
    ("LoraConfig", "max_num_adapters_per_replica"): lambda folder: _raises(
        "holds 2",
        lambda: config(
            lora_config={"dynamic_lora_loading_path": folder, "max_num_adapters_per_replica": 1}
        ).to_model_config(),
    ),
    ("LLMServingArgs", "llm_configs"): lambda _: _bound(build_openai_app({"llm_configs": [_json()]}))[1:] == (1,),
    ("LLMServingArgs", "ingress_deployment_config"): lambda _: (
        _bound(
            build_openai_app(
                {"llm_configs": [_json()], "ingress_deployment_config": {"num_replicas": 2, "name": "front"}}
            )
        )
        == ("front", 2)
    ),
}


def _json():
    return {"model_loading_config": {"model_id": "m"}, "llm_engine": "sim"}


def _bound(app):
    return app._bound_deployment.name, app._bound_deployment.num_replicas


def _gateway(router):
    return router.bind([build_llm_deployment(config())])._bound_deployment.num_replicas


def _raises(words, call):
    with pytest.raises(ConfigError, match=words):
        call()
    return True


@pytest.mark.parametrize(
    ("owner", "field"),
    [(owner, field) for owner, rules in RULES.items() for field, rule in rules.items() if isinstance(rule, Mapped)],
)
def test_mapped_fields_have_their_effect(owner, field, adapters):
    assert MAPPED[owner, field](adapters)


@pytest.mark.parametrize("key", [key for key, rule in EXPERIMENTAL.items() if isinstance(rule, Refused)] + ["other"])
def test_experimental_keys_are_refused_by_name(key):
    with pytest.raises(ConfigError, match=key):
        config(experimental_configs={key: 1})


@pytest.mark.parametrize("key", [*DEPLOYMENT_REFUSED, "num_replica", "func_or_class"])
def test_deployment_options_are_refused_by_name(key):
    with pytest.raises(ConfigError, match=key):
        config(deployment_config={key: 1})


def test_keys_that_ray_itself_would_ignore_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'max_replicas'"):
        config(deployment_config={"autoscaling_config": {"max_replica": 2}})
    with pytest.raises(ConfigError, match="bundle_per_worker"):
        config(placement_group_config={"bundle": {}})


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"accelerator_type": "TPU-V4"}, "TPU"),
        ({"accelerator_config": {"kind": "tpu"}}, "TPU"),
        ({"accelerator_type": "CPU", "accelerator_config": {"kind": "gpu"}}, "contradict"),
        ({"log_engine_metrics": True}, "log_engine_metrics"),
        ({"model_loading_config": {"model_id": "m", "model_source": {"bucket_uri": "s3://x"}}}, "model_source"),
        ({"lora_config": {"dynamic_lora_loading_path": "s3://x"}}, "not local"),
        ({"engine_kwargs": {"max_num_seq": 1}}, "max_num_seqs"),
    ],
)
def test_values_that_cannot_be_served_are_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        config(**fields).get_serve_options()


def test_an_unknown_engine_is_refused_when_the_config_is_made():
    with pytest.raises(PluginNotFound, match="sglang"):
        config("SGLang")


@pytest.mark.parametrize("name", ["build_pd_openai_app", "build_dp_deployment", "build_dp_openai_app"])
def test_builders_without_a_counterpart_refuse(name):
    with pytest.raises(UnsupportedFeature, match=name):
        getattr(ours, name)({})


def test_one_model_alone_needs_no_router():
    options = config(deployment_config={"autoscaling_config": {"min_replicas": 1, "max_replicas": 2}})
    deployment = LLMServer.as_deployment(options.get_serve_options(name_prefix="vLLM:")).bind(options)
    app = LLMRouter.as_deployment().bind([deployment])
    assert _bound(app)[0] == "vLLM:m"
    assert issubclass(app._bound_deployment.func_or_class, LLMServer)
    assert app._bound_deployment._deployment_config.autoscaling_config.max_replicas == 2
    current = serve.deployment(LLMServer).options(**LLMServer.get_deployment_options(options)).bind(options)
    assert _bound(LLMRouter.as_deployment().bind(llm_deployments=[current]))[0] == "m"
    second = config(model_loading_config={"model_id": "n"})
    both = LLMRouter.as_deployment().bind([deployment, LLMServer.as_deployment().bind(second)])
    assert _bound(both)[0] == "gateway"


def test_configurations_are_read_from_yaml(tmp_path):
    text = "model_loading_config: {model_id: m}\nllm_engine: sim\n"
    (tmp_path / "m.yaml").write_text(text)
    for entry in (text, str(tmp_path / "m.yaml"), str(tmp_path)):
        assert LLMServingArgs(llm_configs=[entry]).parse_args().llm_configs[0].model_id == "m"
    with pytest.raises(ConfigError, match="neither"):
        LLMServingArgs(llm_configs=["nonsense"])


@pytest.mark.engine
def test_methods_take_what_rays_take():
    llm = pytest.importorskip("ray.serve.llm", exc_type=ImportError)
    theirs = inspect.signature(llm.build_llm_deployment).parameters
    assert list(inspect.signature(build_llm_deployment).parameters) == list(theirs)
