"""A config file for serving, on the command line: what is refused before Ray is even looked for."""

import json

import pytest

from trunnion_cli.main import main

FILE = """
applications:
  - name: one
    import_path: trunnion_ray.serve:build_openai_app
    args: {models: [{name: m, engine: sim}]}
"""


@pytest.fixture
def write(tmp_path):
    def write(text=FILE, name="serve.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.mark.parametrize(
    "flags",
    [
        ["--engine", "sim"], ["--set", "seed=1"], ["--adapter", "a=b"], ["--hook", "a.b=1"], ["--media", "max_urls=1"],
        ["--name", "x"], ["--api-keys-env", "X"], ["--max-requests", "2"], ["--drain", "1"], ["--replicas", "2"],
        ["--replicas", "1"], ["--admin-keys-env", "X"], ["--cors-origin", "*"], ["--max-loras", "2"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_flags_whose_place_is_the_file_are_refused(write, capfd, flags):
    path = write()
    assert main(["serve", path, *flags]) == 2
    assert f"{flags[0]} does not go with a config file: say it in {path}" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "A.YAML"])
def test_every_problem_has_a_line_of_its_own(write, capfd, name):
    path = write(FILE.replace("engine: sim", "engin: sim").replace("name: one", "nam: one"), name)
    assert main(["serve", path, "--port", "0"]) == 2
    assert capfd.readouterr().err.splitlines() == [
        f"error: {path}:3: applications[0].nam: there is no such setting; did you mean 'name'?",
        f"error: {path}:5: applications[0].args.models[0].engin: there is no such setting; did you mean 'engine'?",
    ]


def test_a_file_that_is_not_there_or_no_yaml_is_one_line(write, capfd):
    assert main(["serve", "no/such.yaml"]) == 2
    assert "the config file no/such.yaml cannot be read" in capfd.readouterr().err
    assert main(["serve", write("applications: [\n")]) == 2
    assert "is not valid YAML: line 2" in capfd.readouterr().err


def test_a_port_that_is_taken_is_found_out_before_ray_starts(write, capfd):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        in_file = write(FILE + f"http_options: {{port: {port}}}\n")
        assert main(["serve", in_file]) == 2
        assert f"cannot listen on 127.0.0.1:{port}" in capfd.readouterr().err
        assert main(["serve", write(), "--port", str(port)]) == 2
        assert f"cannot listen on 127.0.0.1:{port}" in capfd.readouterr().err


def test_the_schema_is_printed(capfd):
    assert main(["serve", "--schema"]) == 0
    schema = json.loads(capfd.readouterr().out)
    assert {"AppConfig", "ModelConfig", "sim.config"} <= set(schema["$defs"])
