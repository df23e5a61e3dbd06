"""What a model's configuration becomes, without starting Ray."""

import inspect

import pytest

import trunnion
from trunnion.errors import ConfigError, EngineDead, InternalError, PluginNotFound, Transient, UnsupportedFeature
from trunnion_ray.serve import (
    AppConfig,
    Autoscaling,
    LLMConfig,
    LLMRouter,
    ModelConfig,
    build_llm_deployment,
    build_openai_app,
    compose,
    direct_env_vars,
    serve_options,
)
from trunnion_ray.serve import topology as topologies
from trunnion_ray.serve.application import model_application
from trunnion_ray.serve.errors import unwrap
from trunnion_ray.serve.options import deployment_options, pipeline_spec

TIMES = {"a": 90.0, "b": 30.0}


def bound(app):
    deployment = app._bound_deployment
    return deployment.name, (deployment.func_or_class.__mro__[1].__name__,)


def test_who_stands_before_models_outlives_them():
    models = [
        {"name": name, "engine": "sim", "graceful_shutdown_timeout_s": seconds} for name, seconds in TIMES.items()
    ]
    mirrored = [
        build_llm_deployment(
            LLMConfig(
                model_loading_config={"model_id": name},
                llm_engine="sim",
                deployment_config={"graceful_shutdown_timeout_s": seconds},
            )
        )
        for name, seconds in TIMES.items()
    ]
    for app in (
        build_openai_app(models),
        compose("program", program, models),
        LLMRouter.as_deployment().bind(mirrored),
    ):
        assert app._bound_deployment._deployment_config.graceful_shutdown_timeout_s > max(TIMES.values())


async def program(request, models):
    yield "x"


def options_of(**fields):
    config = ModelConfig(**{"name": "m", "engine": "sim", **fields})
    return deployment_options(config, pipeline_spec(config))


@pytest.mark.parametrize(
    ("fields", "ours"),
    [
        ({}, False),
        ({"num_replicas": 2}, True),
        ({"autoscaling": {"max_replicas": 2}}, True),
        ({"num_replicas": 2, "router": {"router": "affinity"}}, True),
    ],
)
def test_a_gateway_chooses_among_replicas_by_a_router_of_ours(fields, ours):
    def router(**how):
        app = model_application(ModelConfig(**{"name": "m", "engine": "sim", **fields}), **how)
        return app._bound_deployment._deployment_config.request_router_config

    chosen = router()
    assert ("trunnion" in str(chosen.request_router_class)) == ours
    if ours:
        assert chosen.request_router_kwargs["router"] == fields.get("router", {"router": "power_of_two"})["router"]
    if "router" not in fields:
        assert "trunnion" not in str(router(ingress=True).request_router_class)


def test_the_engine_says_what_a_replica_takes():
    assert options_of()["ray_actor_options"] == {"num_cpus": 1.0}
    options = options_of(engine="vllm", model="x", config={"device": "cpu", "tensor_parallel_size": 2})
    assert options["ray_actor_options"] == {"num_cpus": 2.0}
    options = options_of(engine="vllm", model="x", config={"device": "cuda", "tensor_parallel_size": 2})
    assert options["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 2.0}
    assert "placement_group_bundles" not in options


def test_media_settings_cross_with_the_spec():
    default = pipeline_spec(ModelConfig(name="m", engine="sim")).media
    assert (default, default.allowed_hosts) == (trunnion.MediaPolicy(), ())
    config = ModelConfig(name="m", engine="sim", media={"allowed_hosts": ["images.example"], "max_redirects": 0})
    assert pipeline_spec(config).media == trunnion.MediaPolicy(allowed_hosts=["images.example"], max_redirects=0)
    with pytest.raises(ValueError, match="no host"):
        ModelConfig(name="m", engine="sim", media={"allowed_hosts": ["https://images.example/"]})


def test_ranks_that_ray_places_get_a_bundle_each():
    settings = {"device": "cuda", "tensor_parallel_size": 2, "distributed_executor_backend": "ray"}
    options = options_of(engine="vllm", model="x", config=settings)
    assert options["placement_group_bundles"] == [{"CPU": 1.0, "GPU": 1.0}] * 2
    assert options["placement_group_strategy"] == "PACK"
    assert options["ray_actor_options"] == {"num_cpus": 1.0}  # the GPUs are the workers' to take


def test_what_the_user_says_wins():
    options = options_of(
        ray_actor_options={"num_cpus": 3, "runtime_env": {"env_vars": {"A": "1"}}},
        env_vars={"B": "2"},
        placement_group_bundles=({"CPU": 4.0},),
        placement_group_strategy="STRICT_PACK",
    )
    assert options["placement_group_bundles"] == [{"CPU": 4.0}]
    assert options["placement_group_strategy"] == "STRICT_PACK"
    assert options["ray_actor_options"]["num_cpus"] == 3
    assert options["ray_actor_options"]["runtime_env"] == {"env_vars": {"A": "1", "B": "2"}}


def test_scaling_is_said_once():
    assert options_of()["num_replicas"] == 1
    options = options_of(autoscaling=Autoscaling(min_replicas=1, max_replicas=3))
    assert options["autoscaling_config"] == {"min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 32.0}
    assert "num_replicas" not in options
    with pytest.raises(ValueError, match="exclude each other"):
        options_of(num_replicas=2, autoscaling=Autoscaling(max_replicas=2))
    with pytest.raises(ValueError, match="below min_replicas"):
        Autoscaling(min_replicas=3, max_replicas=2)


def test_adapters_take_the_form_the_engine_knows():
    names = pipeline_spec(ModelConfig(name="m", engine="sim", adapters={"a": "/x"})).engine.config["adapters"]
    assert list(names) == ["a"]
    paths = pipeline_spec(ModelConfig(name="m", engine="vllm", model="x", adapters={"a": "/x"})).engine.config
    assert paths["adapters"] == {"a": "/x"}


def test_an_engine_is_chosen_where_none_is_named():
    chosen = pipeline_spec(ModelConfig(name="m", model="demo", config={"base_url": "http://localhost:1/v1"})).engine
    assert chosen.engine == "openai"


def test_the_plugin_policy_of_the_driver_crosses():
    spec = pipeline_spec(ModelConfig(name="m", engine="sim"))
    assert spec.policy == trunnion.get_registry().policy


@pytest.mark.parametrize(
    ("models", "error", "words"),
    [
        ([], ConfigError, "models"),
        ("m", ConfigError, "model configurations"),
        ([{"name": "m", "engine": "absent"}], PluginNotFound, "absent"),
        ([{"name": "m", "engine": "sim", "config": {"max_num_seq": 1}}], ConfigError, "'max_num_seqs'"),
        ([{"name": "m", "engine": "sim", "num_replica": 1}], ConfigError, "num_replicas"),
        ([{"name": "m", "engine": "sim", "hooks": {"absent": {}}}], PluginNotFound, "no hooks plugin"),
        ([{"name": "m", "engine": "sim"}] * 2, ConfigError, "two models are named"),
        ([{"name": "m", "engine": "sim", "router": {"router": "affinity"}}], ConfigError, "gateway"),
        ({"models": [{"name": "m", "engine": "sim"}], "topologie": "auto"}, ConfigError, "topology"),
        (
            {"models": [{"name": "a", "engine": "sim"}, {"name": "b", "engine": "sim"}], "topology": "direct"},
            ConfigError,
            "one model per application",
        ),
    ],
)
def test_what_is_wrong_is_named_before_anything_starts(models, error, words):
    with pytest.raises(error, match=words):
        build_openai_app(models)


def test_one_model_needs_no_gateway():
    one, two = ({"name": name, "engine": "sim"} for name in ("a/b.c", "d"))
    assert bound(build_openai_app([one])) == ("a--b_c", ("ModelReplica",))
    assert bound(build_openai_app([one], topology="gateway"))[0] == "gateway"
    assert bound(build_openai_app([one, two]))[0] == "gateway"
    assert bound(build_openai_app(AppConfig(models=(ModelConfig(**two),))))[0] == "d"


def test_serves_config_files_can_call_the_builder():
    assert len(inspect.signature(build_openai_app).parameters) == 1


def test_direct_needs_variables_that_the_environment_may_override():
    wanted = direct_env_vars({"RAY_SERVE_HAPROXY_METRICS_PORT": "1234"})
    assert wanted["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    assert wanted.get("RAY_SERVE_HAPROXY_METRICS_PORT", "1234") == "1234"
    assert "controller_options" not in serve_options("proxy", port=1)


def test_without_haproxy_direct_is_refused_and_auto_falls_back(monkeypatch, caplog):
    monkeypatch.setattr(topologies._ray_private, "haproxy_is_installed", lambda: False)
    with pytest.raises(ConfigError, match="no HAProxy"):
        serve_options("direct")
    assert "controller_options" not in serve_options("auto")
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


class RayActorError(Exception):
    """Have the name of Ray's."""


class DualError(EngineDead):
    """Be what Ray raises: a class derived from ours, whose object is not ours."""

    def __init__(self, cause):
        self.cause = cause


def test_errors_are_read_through_rays():
    ours = EngineDead("gone", details={"pid": 1})
    assert unwrap(DualError(ours)) is ours
    assert unwrap(ours) is ours
    assert type(unwrap(RayActorError("x"))) is Transient
    assert type(unwrap(ValueError("x"))) is InternalError
    carrier = RuntimeError("task failed")
    carrier.__cause__ = DualError(UnsupportedFeature("no", param="seed"))
    assert unwrap(carrier).param == "seed"
