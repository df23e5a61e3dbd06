"""The command's frame: fast help, one line per mistake, tracebacks only on demand, plugins, the demo model."""

import json
import subprocess
import sys

import pytest

from trunnion_cli.assignments import parse_assignments
from trunnion_cli.main import main
from trunnion_cli.state import STATE


@pytest.fixture
def say_one_line(capfd, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("TRUNNION_PLUGINS_BLOCK", "TRUNNION_PLUGINS_ALLOW"):
        monkeypatch.setenv(name, "")

    def run(*arguments):
        monkeypatch.setattr(STATE, "policy_names", [])
        code = main(list(arguments))
        captured = capfd.readouterr()
        lines = captured.err.splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("error: ")
        assert captured.out == ""
        return code, lines[0]

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "in.jsonl", "out.jsonl", "--modle", "x"], "No such option: --modle"),
        (["swerve"], "No such command 'swerve'"),
        (["run", "in.jsonl"], "name the OUTPUT"),
        (["run", "in.jsonl", "out.jsonl", "--engine", "sim"], "INPUT in.jsonl does not exist"),
        (["run", "in.csv", "out.jsonl", "--engine", "sim"], "must end in .jsonl or .parquet"),
        (["run", "-", "out.csv", "--engine", "sim"], "OUTPUT out.csv"),
        (["run", "-", "no/out.jsonl", "--engine", "sim"], "its folder does not exist"),
        (["run", "-", "-", "--engine", "sim", "--replicas", "2"], "--replicas needs --ray"),
        (["run", "-", "-", "--engine", "sim", "--ray"], "--ray reads a file"),
        (["run", "in.jsonl", "-", "--engine", "sim", "--ray", "--deduplicate"], "with --ray name a --cache"),
        (["run", "-", "-", "--engine", "sim", "--concurrency", "0"], "--concurrency"),
        (["run", "-", "-", "--engine", "sim", "--set", "max_num_seq=1"], "did you mean 'max_num_seqs'?"),
        (["run", "-", "-", "--engine", "sim", "--set", "max_num_seqs=many"], "setting 'max_num_seqs'"),
        (["run", "-", "-", "--engine", "sim", "--set", "slots"], "--set takes KEY=VALUE, not 'slots'"),
        (["run", "-", "-", "--engine", "sim", "--sampling", "temprature=1"], "did you mean 'temperature'?"),
        (["chat", "--engine", "simm"], "did you mean 'sim'?"),
        (["chat", "./nothing-here", "--engine", "vllm"], "no model at ./nothing-here"),
        (["chat", "--engine", "sim", "--adapter", "=x"], "--adapter takes NAME=PATH"),
        (["serve", "no/such/model", "--engine", "sim"], "no model at no/such/model"),
        (["serve", "--engine", "sim", "--port", "99999"], "--port"),
        (["serve", "--engine", "sim", "--port", "0", "--api-keys-env", "NO_SUCH_KEYS"], "NO_SUCH_KEYS"),
        (["plugins", "schema", "smi"], "did you mean 'sim'?"),
        (["plugins", "schema", "sim", "--kind", "motor"], "--kind is one of engine"),
        (["--block-plugin", "sim", "plugins", "schema", "sim"], "could not be loaded"),
        (["--block-plugin", "sim", "chat", "--engine", "sim"], "is blocked"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(say_one_line, arguments, words):
    code, line = say_one_line(*arguments)
    assert words in line
    assert code == 2


def test_help_is_quick_and_loads_nothing_heavy():
    script = (
        "import sys, time; began = time.process_time()\n"
        "import trunnion_cli.main as m\n"
        "code = m.main(['--help'])\n"
        "print(time.process_time() - began, file=sys.stderr)\n"
        "heavy = {'ray', 'torch', 'vllm', 'transformers', 'pyarrow', 'numpy', 'pydantic', 'uvicorn', 'trunnion'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    seconds, heavy = done.stderr.split("\n")[:2]
    assert "demo-model" in done.stdout
    assert heavy == "[]"
    assert float(seconds) < 0.7


def test_debug_shows_the_traceback(cli):
    result = cli.run("run", "gone.jsonl", "-", "--engine", "sim", "--debug")
    assert "Traceback" in result.err
    assert "ConfigError" in result.err
    assert result.code == 1


def test_assignments_nest_and_parse_json():
    pairs = ["a.b=1", "a.c=x y", "d=[1, 2]", 'e="7"', "f=true", "g=a=b", "h="]
    expected = {"a": {"b": 1, "c": "x y"}, "d": [1, 2], "e": "7", "f": True, "g": "a=b", "h": ""}
    assert parse_assignments("--set", pairs) == expected
    with pytest.raises(Exception, match="a is already set to a value"):
        parse_assignments("--set", ["a=1", "a.b=2"])


def test_plugins_are_listed_and_described(capfd):
    assert main(["plugins", "list", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)
    assert {"kind": "engine", "name": "sim", "state": "ok"}.items() <= next(
        r for r in rows if r["name"] == "sim"
    ).items()
    assert main(["plugins", "list"]) == 0
    assert "chat_template" in capfd.readouterr().out
    assert main(["plugins", "schema", "sim"]) == 0
    assert "max_num_seqs" in json.loads(capfd.readouterr().out)["properties"]
    assert main(["engines"]) == 0
    assert "probes_health" in capfd.readouterr().out


def make_distribution(folder, name, entry_point, module, source):
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(f"[trunnion.plugins]\n{entry_point} = {module}\n", encoding="utf-8")


STAGE_NAMED_SIM = """
from trunnion import StagePlugin, hookimpl
@hookimpl
def trunnion_stages():
    return [StagePlugin(name="sim", factory="x:y")]
"""


def test_doctor_says_what_is_broken_and_what_to_do(cli, tmp_path):
    make_distribution(tmp_path, "broken-one", "broken", "broken_one", "raise RuntimeError('no luck')")
    make_distribution(tmp_path, "twin-a", "twin", "twin_a", "")
    make_distribution(tmp_path, "twin-b", "twin", "twin_b", "")
    env = {"PYTHONPATH": str(tmp_path)}
    result = cli.run("plugins", "doctor", env=env)
    assert result.code == 1, result
    assert "failed: plugin broken (from broken-one 1.0, broken_one)" in result.out
    assert "no luck" in result.out
    assert "python -c 'import broken_one'" in result.out
    assert result.out.count("conflict: plugin twin") == 2
    assert "Traceback" not in result.err
    blocked = cli.run("--block-plugin", "broken-one", "--block-plugin", "twin-b", "plugins", "doctor", env=env)
    assert "blocked: plugin broken" in blocked.out
    assert "conflict" not in blocked.out


HOOKS = """
from trunnion import HooksPlugin, hookimpl
@hookimpl
def trunnion_hooks():
    return [HooksPlugin(name="limits", factory="x:y")]
"""


def test_hooks_are_listed_as_in_force(cli, tmp_path):
    make_distribution(tmp_path, "limits-one", "limits", "limits_plugin", HOOKS)
    env = {"PYTHONPATH": str(tmp_path)}
    (line,) = [line for line in cli.run("plugins", "list", env=env).out.splitlines() if "limits-one" in line]
    assert "in force" in line
    rows = json.loads(cli.run("plugins", "list", "--json", env=env).out)
    assert {row["name"] for row in rows if row["in_force"]} == {"limits", "rate_limits"}
    blocked = cli.run("--block-plugin", "limits", "plugins", "list", env=env)
    assert not [line for line in blocked.out.splitlines() if "limits-one" in line and "in force" in line]


ENGINE = """
from trunnion import EnginePlugin, hookimpl
@hookimpl
def trunnion_engines():
    return [EnginePlugin(name="lost", factory="lost_plugin.{module}:Engine")]
"""


def make_editable(folder, name):
    told = json.dumps({"url": f"file://{folder}", "dir_info": {"editable": True}})
    (folder / f"{name.replace('-', '_')}-1.0.dist-info" / "direct_url.json").write_text(told)


@pytest.mark.parametrize("editable", [False, True])
@pytest.mark.parametrize(
    ("source", "why", "mine", "theirs"),
    [
        ("import no_such_lib", "No module named 'no_such_lib'",
         "import no_such_lib inside start(), and declare it with requires=", "install no_such_lib, or upgrade or"),
        ("def broken(:", "SyntaxError", "mend {folder}/odd_one.py, line 1", "{folder}/odd_one.py, line 1; upgrade"),
        ("import odd_one.inside", "odd_one.inside", "mend it in {folder}", "upgrade or uninstall odd-one"),
        ("", "No module named 'no_module'", "name a module that exists in the entry point", "does not exist; upgrade"),
    ],
)  # fmt: skip
def test_doctor_advises_by_cause(cli, tmp_path, source, why, *, mine, theirs, editable):
    make_distribution(tmp_path, "odd-one", "odd", "odd_one", source)
    if not source:
        (tmp_path / "odd_one-1.0.dist-info" / "entry_points.txt").write_text("[trunnion.plugins]\nodd = no_module\n")
    if editable:
        make_editable(tmp_path, "odd-one")
    said = cli.run("plugins", "doctor", env={"PYTHONPATH": str(tmp_path)}).out
    assert why in said
    assert (mine if editable else theirs).format(folder=tmp_path) in said
    assert ("uninstall" in said) is not editable


@pytest.mark.parametrize(("module", "code"), [("engine", 0), ("motor", 1), ("deep.engine", 1)])
def test_doctor_finds_a_factory_whose_module_is_not_there_without_importing_it(cli, tmp_path, module, code):
    (tmp_path / "lost_plugin").mkdir()
    make_distribution(tmp_path, "lost-one", "lost", "lost_plugin/__init__", ENGINE.format(module=module))
    entry_points = next(tmp_path.rglob("entry_points.txt"))
    entry_points.write_text("[trunnion.plugins]\nlost = lost_plugin\n")
    (tmp_path / "lost_plugin" / "engine.py").write_text("raise SystemExit('imported')")
    result = cli.run("plugins", "doctor", env={"PYTHONPATH": str(tmp_path)})
    assert result.code == code, result
    assert ("failed: engine lost (from lost-one 1.0, lost_plugin)" in result.out) is bool(code)
    missing = "lost_plugin." + module.partition(".")[0]
    assert (f"there is no module {missing}\n" in result.out) is bool(code)


def test_doctor_is_content_where_nothing_is_broken(capfd):
    code = main(["plugins", "doctor"])
    assert code == 0, capfd.readouterr().out


def test_one_name_of_two_kinds_must_be_told_apart(cli, tmp_path):
    make_distribution(tmp_path, "other", "other", "other_plugin", STAGE_NAMED_SIM)
    env = {"PYTHONPATH": str(tmp_path)}
    result = cli.run("plugins", "schema", "sim", env=env)
    assert result.code == 2
    assert "--kind engine or --kind stage" in result.err
    assert "max_num_seqs" in cli.run("plugins", "schema", "sim", "--kind", "engine", env=env).out


def test_allowing_loads_nothing_else_and_a_name_that_fits_nothing_is_told(cli):
    result = cli.run("--allow-plugin", "sim", "--block-plugin", "nonesuch", "plugins", "list", "--json")
    states = {row["name"]: row["state"] for row in json.loads(result.out)}
    assert states["sim"] == "ok"
    assert {state for name, state in states.items() if name != "sim"} == {"blocked"}
    assert "--block-plugin nonesuch: no installed plugin" in result.err


@pytest.mark.parametrize(
    "command",
    [
        ["plugins", "list"], ["plugins", "schema", "sim"], ["plugins", "doctor"], ["engines"], ["sim", "presets"],
        ["chat", "--engine", "sim", "-m", "hi"], ["run-batch", "none.jsonl", "out.jsonl"], ["demo-model", "demo"],
    ],
)  # fmt: skip
def test_every_command_tells_once_of_names_that_fit_nothing(cli, command):
    env = {"TRUNNION_PLUGINS_BLOCK": "not-there-either"}
    said = cli.run("--block-plugin", "trunion", "--block-plugin", "nosuch", *command, env=env).err
    assert "note: --block-plugin nosuch: no installed plugin or distribution has that name\n" in said
    assert (
        "note: --block-plugin trunion: no installed plugin or distribution has that name; did you mean trunnion?"
        in said
    )
    assert said.count("nosuch") == 1
    assert "'not-there-either' is no entry point" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plugins", "new", "foo", "--kind", "enjine"], "Did you mean 'engine'?"),
        (["chat", "--engine", "sim", "--set", "preset=h100-80b", "-m", "hi"], "did you mean 'h100-8b'?"),
    ],
)
def test_a_wrong_choice_is_told_in_our_words(say_one_line, arguments, words):
    code, line = say_one_line(*arguments)
    assert code == 2
    assert words in line
    assert "Value error" not in line


@pytest.mark.parametrize("group", ["plugins", "sim"])
def test_a_group_without_a_command_prints_its_help(cli, group):
    result = cli.run(group)
    assert f"Usage: trunnion {group}" in result.out + result.err
    assert "error:" not in result.out + result.err


def test_without_a_real_engine_the_error_says_what_to_install(say_one_line):
    code, line = say_one_line("--allow-plugin", "sim", "chat", "--message", "hello")
    assert code == 2
    assert "pip install 'trunnion[vllm]'" in line
    assert "--engine sim" in line


def test_the_demo_model_is_written_once_unless_forced(cli, tmp_path):
    result = cli.run("demo-model", "demo")
    assert result.code == 0, result
    assert (tmp_path / "demo" / "config.json").exists()
    again = cli.run("demo-model", "demo")
    assert again.code == 2
    assert again.err.startswith("error: demo is not empty")
    assert cli.run("demo-model", "demo", "--force").code == 0
