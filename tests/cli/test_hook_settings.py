"""--hook reaches request hooks, wherever the engine runs."""

import json
import os
import textwrap
import urllib.error
import urllib.request

import pytest
from cli_lines import wait_for_line

pytestmark = pytest.mark.slow
SIM = ("--engine", "sim", "--set", "output=echo")
GUARD = '''
from trunnion import HooksPlugin, PluginConfig, hookimpl
from trunnion.errors import PermissionDenied


class GuardConfig(PluginConfig):
    word: str = "never"


class Guard:
    """Refuse prompts that hold the word."""

    def __init__(self, config):
        self.word = config.word

    def before_request(self, request):
        if self.word in str(request.prompt):
            raise PermissionDenied(f"{self.word} is not spoken of")


@hookimpl
def trunnion_hooks():
    return [HooksPlugin(name="guard", factory="trunnion_guard:Guard", config=GuardConfig)]
'''


@pytest.fixture
def guarded(tmp_path):
    """Install the guard; return the environment that finds it."""
    site = tmp_path / "site"
    info = site / "trunnion_guard-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trunnion-guard\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[trunnion.plugins]\nguard = trunnion_guard\n")
    (site / "trunnion_guard.py").write_text(textwrap.dedent(GUARD))
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def run(cli, guarded, *more):
    cli.write("in.jsonl", [{"prompt": "of gold"}, {"prompt": "of tin"}])
    return cli.run("run", "in.jsonl", "out.jsonl", *SIM, "--overwrite", *more, env=guarded)


def test_run_gives_hooks_their_settings(cli, guarded):
    assert run(cli, guarded).code == 0
    assert [row["error"] for row in cli.read("out.jsonl")] == [None, None]
    assert run(cli, guarded, "--hook", "guard.word=gold").code == 0
    errors = [row["error"] for row in cli.read("out.jsonl")]
    assert errors[0]["message"] == "gold is not spoken of"
    assert errors[1] is None


def test_chat_gives_hooks_their_settings(cli, guarded):
    result = cli.run("chat", *SIM, "--hook", "guard.word=gold", "--message", "of gold", env=guarded)
    assert "gold is not spoken of" in result.err
    assert result.code == 1


def ask(url):
    body = json.dumps({"messages": [{"role": "user", "content": "of gold"}]}).encode()
    post = urllib.request.Request(f"{url}/chat/completions", body, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(post, timeout=30)
    with caught.value as answer:
        return answer.status, answer.read().decode()


def serve(cli, guarded, *more):
    process = cli.start("serve", *SIM, "--port", "0", "--hook", "guard.word=gold", *more, env=guarded)
    url = wait_for_line(process.stderr, "Ctrl-C stops it").partition(" at ")[2].split()[0]
    status, text = ask(url)
    assert status == 403
    assert "gold is not spoken of" in text
    assert cli.interrupt(process, timeout=60).code == 130


def test_serve_gives_hooks_their_settings(cli, guarded):
    serve(cli, guarded)


@pytest.mark.ray
def test_serve_on_ray_gives_hooks_their_settings(cli, guarded):
    serve(cli, guarded, "--ray")


@pytest.mark.ray
def test_run_on_ray_gives_hooks_their_settings(cli, guarded):
    assert run(cli, guarded, "--ray", "--hook", "guard.word=gold").code == 0
    assert [bool(row["error"]) for row in cli.read("out.jsonl")] == [True, False]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("guard.wort=gold", "hooks 'guard' has no setting 'wort'; did you mean 'word'"),
        ("guard=gold", "--hook takes NAME.KEY=VALUE, not guard=gold"),
        ("gard.word=gold", "no hooks plugin is called 'gard'; did you mean 'guard'"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "chat"])
def test_wrong_settings_end_the_command(cli, guarded, command, setting, words):
    result = cli.run(command, *SIM, "--hook", setting, env=guarded)
    assert result.code == 2
    assert words in result.err
