"""A config file is checked to the last key before anything starts, and its schema says the same."""

import json
import re
import warnings
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

import trunnion
from trunnion.errors import ConfigError
from trunnion_ray.serve.config_file import read_config_file
from trunnion_ray.serve.config_schema import config_schema

GOOD = """
http_options: {host: 0.0.0.0, port: 8123}
applications:
  - name: one
    route_prefix: /one
    import_path: trunnion_ray.serve:build_openai_app
    args:
      models:
        - {name: m, engine: sim, config: {seed: 3}, adapters: {loud: /x}, lora: {max_loras: 2}}
  - name: two
    route_prefix: /two
    import_path: trunnion_ray.serve:build_openai_app
    args:
      topology: gateway
      http: {max_requests: 5}
      models:
        - name: a
          engine: sim
          autoscaling: {min_replicas: 0, max_replicas: 3}
          router: {router: affinity, config: {prefix: false}}
        - {name: b, engine: sim, stages: [{stage: detokenize}], media: {allowed_hosts: [example.com]}}
  - name: own
    route_prefix: /own
    import_path: chain:app
    runtime_env: {env_vars: {HOME: /tmp}}
    args: {whatever: 1}
"""
APP = {"name": "x", "import_path": "trunnion_ray.serve:build_openai_app"}


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "chain.py").write_text("raise RuntimeError('nothing is imported to check a file')")

    def write(text):
        path = tmp_path / "config.yaml"
        path.write_text(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False), encoding="utf-8")
        return path

    return write


@pytest.fixture
def problems(write):
    """Return what is wrong with a file, as lines without its name."""

    def told(text, **options):
        path = write(text)
        with pytest.raises(ConfigError) as caught:
            read_config_file(path, **options)
        return [line.removeprefix(str(path)).lstrip(":") for line in str(caught.value).splitlines()]

    return told


@pytest.fixture(scope="module")
def schema():
    made = config_schema(trunnion.get_registry().engines())
    jsonschema.Draft202012Validator.check_schema(made)
    return jsonschema.Draft202012Validator(made)


def app(*models, **further):
    return {"applications": [{**APP, "args": {"models": list(models), **further}}]}


def sim(**fields):
    return {"name": "m", "engine": "sim", **fields}


def test_a_right_file_is_taken_by_us_by_the_schema_and_by_ray(write, schema):
    file = read_config_file(write(GOOD))
    assert [one.name for one in file.applications] == ["one", "two", "own"]
    assert file.applications[0].config.models[0].lora.max_loras == 2
    assert file.applications[2].config is None
    assert file.text == GOOD
    assert list(schema.iter_errors(yaml.safe_load(GOOD))) == []
    assert ServeDeploySchema.model_validate(yaml.safe_load(GOOD)).http_options.port == 8123
    assert file.to_ray().applications[1].args["models"][0]["name"] == "a"


def test_every_problem_is_told_with_line_and_key(problems):
    text = """\
http_optons: {port: 1}
applications:
  - name: one
    import_path: trunnion_ray.serve:build_openai_app
    args:
      models:
        - {name: a, engine: sim, config: {max_num_seq: 1, tpot: fast}}
        - name: b
          engin: sim
        - {name: c, engine: sim, autoscaling: {max_replica: 2}, num_replicas: 0}
  - name: two
    route_prefix: two
    args: {}
"""
    expected = [
        "1: http_optons: there is no such setting; did you mean 'http_options'?",
        "7: applications[0].args.models[0].config.max_num_seq: there is no such setting; did you mean 'max_num_seqs'?",
        "7: applications[0].args.models[0].config.tpot: Input should be a valid number, unable to parse ...",
        "9: applications[0].args.models[1].engin: there is no such setting; did you mean 'engine'?",
        "10: applications[0].args.models[2].autoscaling.max_replica: there is no such ... 'max_replicas'?",
        "10: applications[0].args.models[2].num_replicas: Input should be greater than or equal to 1",
        "11: applications[1].import_path: is required; ... `import_path: trunnion_ray.serve:build_openai_app`",
        "12: applications[1].route_prefix: must begin with a slash and not end with one, unlike 'two'",
    ]
    for line, words in zip(problems(text), expected, strict=True):
        assert re.fullmatch(re.escape(words).replace(r"\.\.\.", ".*"), line)


@pytest.mark.parametrize(
    ("given", "key", "words"),
    [
        (app(sim(engine="simm")), "args.models[0].engine", "did you mean 'sim'?"),
        (app({"name": "m", "engine": "vllm"}), "args.models[0].model", "needs a model"),
        (app(sim(stages=[{"stage": "detok"}])), "args.models[0].stages[0].stage", "did you mean 'detokenize'?"),
        (app(sim(stages=[{"stage": "tokenize", "config": {"x": 1}}])), "args.models[0].stages[0].config.x", "no such"),
        (app(sim(router={"router": "near"})), "args.models[0].router.router", "no router plugin"),
        (app(sim(router={"router": "affinity", "config": {"x": 1}})), "args.models[0].router.config.x", "no such"),
        (app(sim(hooks={"none": {}})), "args.models[0].hooks.none", "no hooks plugin"),
        (app(sim(media={"allowed_hosts": ["https://x/"]})), "args.models[0].media.allowed_hosts", "is no host"),
        (app(sim(lora={"max_lora": 1})), "args.models[0].lora.max_lora", "did you mean 'max_loras'?"),
        (app(sim(), http={"max_request": 1}), "args.http.max_request", "did you mean 'max_requests'?"),
        (app(sim(), sim()), "args.models", "two models are named 'm'"),
        (app(sim(), sim(name="n"), topology="direct"), "args.topology", "one model per application"),
        (app(sim(ray_actor_options={"num_cpu": 1})), "args.models[0].ray_actor_options.num_cpu",
         "model 'm': there is no such setting; did you mean 'num_cpus'?"),
        (app(sim(ray_actor_options={"num_cpus": "few"})), "args.models[0].ray_actor_options.num_cpus", "model 'm'"),
        (app(sim(), gateway={"ray_actor_options": {"gpus": 1}}), "args.gateway.ray_actor_options.gpus", "num_gpus"),
        ({"applications": [{**APP, "import_path": "trunnion_ray.serve:build_openai_ap"}]},
         "import_path", "did you mean trunnion_ray.serve:build_openai_app?"),
        ({"applications": [{**APP, "import_path": "trunnion_ray.serv:build_openai_app"}]},
         "import_path", "did you mean trunnion_ray.serve:build_openai_app?"),
        ({"applications": [{**APP, "import_path": "trunnion_ray.serve.build_openai_apps", "runtime_env": {"pip": []}}]},
         "import_path", "did you mean trunnion_ray.serve.build_openai_app?"),
        (app(), "args.models", "at least 1 item"),
        ({"applications": [{**APP, "args": {}}]}, "args.models", "is required"),
        ({"applications": [{**APP, "args": [1]}]}, "args", "must be a mapping"),
        ({"applications": [{**APP, "runtime_env": {"env_var": {}}, "args": {"models": [sim()]}}]},
         "runtime_env.env_var", "did you mean 'env_vars'?"),
        ({"applications": [{**APP, "deployments": [{"name": "m", "num_replica": 1}], "args": {"models": [sim()]}}]},
         "deployments[0].num_replica", "did you mean 'num_replicas'?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(problems, given, key, words):
    (line,) = problems(given)
    if "ray_actor_options" in key or key == "import_path":  # whatever machine it is for
        assert problems(given, engines=False) == [line]
    assert re.fullmatch(rf"\d+: applications\[0\]\.{re.escape(key)}: .*{re.escape(words)}.*", line), line


def test_applications_must_differ_in_name_and_path(problems):
    one = app(sim())["applications"][0]
    said = "\n".join(problems({"applications": [one, one]}))
    assert "multiple configs" in said or "duplicate" in said
    assert problems({"applications": []}) == ["1: applications: is empty: there is nothing to serve"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("applications:\n  - name: [a\n", "not valid YAML: line 3"),
        ("applications: []\nx: !!python/object:os.system {}\n", "line 2"),
        ("applications:\n  - name: a\n    name: b\n", "line 3: applications[0].name is given twice, first in line 2"),
        ("", "must hold `applications`"),
        ("- a\n", "must hold `applications`"),
        ("applicatons: []\n", "It has 'applicatons': is that what is meant?"),
        ("models: []\n", "It has 'models', which belongs into the `args` of an application of"),
        ("import_path: trunnion_ray.serve:build_openai_app\n", "must hold `applications`"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("applications: &a\n  - *a\n", "applications[0]"),
    ],
)
def test_a_file_that_cannot_be_read_as_one_is_refused_with_its_line(write, text, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_config_file(write(text))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_config_file("no/such/file.yaml")


def test_variables_are_not_replaced(write, monkeypatch):
    monkeypatch.setenv("NAME", "replaced")
    (one,) = read_config_file(write(app(sim(name="$NAME-${NAME}")))).applications
    assert one.config.models[0].name == "$NAME-${NAME}"


def test_paths_beside_the_file_become_absolute(write, tmp_path):
    for name in ("here", "adapters", "keys.txt"):
        (tmp_path / name).mkdir()
    model = sim(model="here", adapters={"a": "adapters", "b": "elsewhere"}, lora={"folders": ["adapters", "s3://b/c"]})
    (one,) = read_config_file(write(app(model, http={"api_keys_file": "keys.txt"}))).applications
    (made,) = one.config.models
    assert (made.model, made.adapters["a"], made.adapters["b"]) == (
        str(tmp_path / "here"), str(tmp_path / "adapters"), "elsewhere",
    )  # fmt: skip
    assert made.lora.folders == (str(tmp_path / "adapters"), "s3://b/c")
    assert one.config.http.api_keys_file == str(tmp_path / "keys.txt")


def test_a_runtime_environment_may_bring_plugins(write, problems):
    given = app({"name": "m", "engine": "of-another", "config": {"anything": 1}})
    assert "no engine plugin" in problems(given)[0]
    given["applications"][0]["runtime_env"] = {"pip": ["trunnion-another"]}
    assert read_config_file(write(given)).applications[0].config.models[0].engine == "of-another"


def test_options_of_actors_that_serve_takes_are_taken(write):
    options = {"num_cpus": 1, "memory": None, "resources": {"x": 1}, "runtime_env": {"working_dir": "/local"}}
    assert read_config_file(write(app(sim(ray_actor_options=options))), engines=False)


def test_what_another_version_of_ours_may_have_is_taken(write):
    path = "trunnion_ray.of_the_future:anything"
    assert read_config_file(write({"applications": [{**APP, "import_path": path, "runtime_env": {"pip": []}}]}))


def test_a_program_that_is_nowhere_is_told(write, problems, monkeypatch):
    own = {"name": "own", "import_path": "no_such_program:app"}
    assert "there is no module 'no_such_program' here" in problems({"applications": [own]})[0]
    for environment in ({"working_dir": "https://x/y.zip"}, {"env_vars": {"PYTHONPATH": "/there"}}):
        assert read_config_file(write({"applications": [{**own, "runtime_env": environment}]}))
    assert read_config_file(write({"applications": [own]}), engines=False)
    monkeypatch.setenv("RAY_ADDRESS", "far:6379")
    assert read_config_file(write({"applications": [own]}))


@pytest.mark.parametrize("setting", ["api_keys_env", "admin_keys_env"])
def test_variables_that_should_hold_keys_are_missed(write, problems, monkeypatch, setting):
    monkeypatch.delenv("NO_SUCH_KEYS", raising=False)
    given = app(sim(), http={setting: "NO_SUCH_KEYS"})
    (line,) = problems(given)
    assert f"applications[0].args.http.{setting}: the environment variable NO_SUCH_KEYS is not set" in line
    assert read_config_file(write(given), engines=False)
    given["applications"][0]["runtime_env"] = {"env_vars": {"NO_SUCH_KEYS": "x"}}
    assert read_config_file(write(given))
    assert read_config_file(write(app(sim(env_vars={"NO_SUCH_KEYS": "x"}), http={setting: "NO_SUCH_KEYS"})))
    del given["applications"][0]["runtime_env"]
    monkeypatch.setenv("NO_SUCH_KEYS", "x")
    assert read_config_file(write(given))


def test_rays_own_words_for_models_are_checked_too(write, problems):
    config = {"model_loading_config": {"model_id": "m"}, "llm_engine": "sim"}
    given = {"applications": [{**APP, "args": {"llm_configs": [config]}}]}
    assert read_config_file(write(given)).applications[0].mirrored.llm_configs[0].model_id == "m"
    given["applications"][0]["args"]["llm_configs"][0]["engine_kwarg"] = {}
    assert "args.llm_configs[0].engine_kwarg: there is no such setting" in problems(given)[0]


@pytest.mark.parametrize(
    ("topologies", "wanted"),
    [(["auto", "gateway"], "auto"), (["proxy", "proxy"], "proxy"), (["proxy", "direct"], "direct"), ([], "auto")],
)
def test_serve_is_started_for_what_the_applications_wish(write, topologies, wanted):
    applications = [
        {**APP, "name": f"a{index}", "route_prefix": f"/a{index}", "args": {"models": [sim()], "topology": topology}}
        for index, topology in enumerate(topologies)
    ]
    own = {"name": "own", "route_prefix": "/own", "import_path": "chain:app"}
    assert read_config_file(write({"applications": applications or [own]})).topology == wanted


def test_the_schema_refuses_what_we_refuse(schema):
    for given in (
        {"applications": [{"name": "no path"}]},
        {"applications": [{**APP}]},
        {"applications": [], "http_optons": {}},
        app({"name": "m", "engin": "sim"}),
        app(sim(config={"max_num_seq": 1})),
        app(sim(), topologie="auto"),
        app(sim(), http={"max_request": 1}),
        {"applications": [{**APP, "args": {"llm_configs": [{"model_loading_config": {"model_id": "m"}, "x": 1}]}}]},
    ):
        assert list(schema.iter_errors(given)), given


def test_the_schema_describes_every_setting_of_ours(schema):
    definitions = schema.schema["$defs"]
    for name in ("AppConfig", "ModelConfig", "HTTPSettings", "GatewayConfig", "Autoscaling", "LoraSettings"):
        for key, part in definitions[name]["properties"].items():
            assert part.get("description"), f"{name}.{key}"
    assert "$schema" in schema.schema
    references = set(re.findall(r'"#/\$defs/([^"]+)"', json.dumps(schema.schema)))
    assert references <= set(definitions)


@pytest.mark.filterwarnings("default")
def test_making_the_schema_warns_of_nothing():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config_schema()
    assert [str(one.message) for one in caught] == []


def test_the_page_points_to_a_file_that_is_right(write, schema):
    """What docs/serving.md shows as a config file is one, for us, for the schema and for Ray."""
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    (text,) = re.findall(r'^```yaml title="serve.yaml"\n(.*?)^```$', page, re.DOTALL | re.MULTILINE)
    read_config_file(write(text))
    assert list(schema.iter_errors(yaml.safe_load(text))) == []
    ServeDeploySchema.model_validate(yaml.safe_load(text))
