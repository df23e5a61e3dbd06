"""``trunnion plugins check`` runs the conformance kit on an installed plugin."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BROKEN = Path(__file__).parents[1] / "conformance" / "broken"


def check(*arguments, path=()):
    """Run the command in a process of its own, where the folders of ``path`` hold further distributions."""
    entries = os.pathsep.join([*map(str, path), *filter(None, sys.path)])
    command = [sys.executable, "-m", "trunnion_cli.main", "plugins", "check", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": entries}, timeout=280, check=False
    )


def test_a_plugin_that_keeps_the_contract():
    done = check("least_loaded")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "router least_loaded" in done.stdout
    assert " 0 failed" in done.stdout


def test_a_rule_that_is_broken_is_named_with_the_reason():
    done = check("broken-drops-a-field", "-k", "seed or usage", path=[BROKEN])
    assert done.returncode == 1
    assert "FAILED test_field[sampling.seed]" in done.stdout
    assert "rule: A field declared *yes* has its effect" in done.stdout
    assert "1 failed" in done.stdout


def test_json_lists_every_test():
    done = check("sim", "--set", "tpot=0.002", "--json", "-k", "usage or json", "--surfaces", "")
    report = json.loads(done.stdout)
    assert (report["plugin"], report["kind"], report["failed"]) == ("sim", "engine", 0)
    assert {test["outcome"] for test in report["tests"]} == {"passed"}
    assert report["passed"] == len(report["tests"]) >= 3


def test_what_nobody_gave_material_for_is_not_checked():
    done = check("sim", "--set", "tpot=0.002", "-k", "priority")
    assert done.returncode == 0, done.stdout
    assert "not checked: test_field[priority]\n  priority is declared yes; give --narrow KEY=VALUE" in done.stdout
    again = check("sim", "--set", "tpot=0.002", "--narrow", "max_num_seqs=1", "-k", "priority")
    assert "1 passed, 0 failed, 0 not checked" in again.stdout, again.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], "nosuch"),
        (["sim", "--kind", "stage"], "sim"),
        (["sim", "--kind", "pipe"], "--kind is one of"),
        (["sim", "--set", "tpott=1"], "did you mean 'tpot'"),
        (["transformers"], "needs a model"),
        (["transformers", "./no/such/model"], "does not exist"),
        (["least_loaded", "-k", "nothing_like_it"], "no test of the kit fits"),
        (["sim", "--surfaces", "htttp"], "there is no surface 'htttp'; there are: http"),
        (["hub"], "'hub' is a source of models; the kit has no suite for sources"),
    ],
)
def test_wrong_use(arguments, said):
    done = check(*arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr


def test_a_plugin_says_with_which_settings_it_is_checked():
    done = check("sim", "--surfaces", "", "-k", "min_tokens or ignore_eos or closing")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "with tpot=0.002, eos_after=30" in done.stderr
    assert "3 passed, 0 failed, 0 not checked" in done.stdout
    mine = check("sim", "--set", "eos_after=25", "--surfaces", "", "-k", "min_tokens")
    assert "with tpot=0.002, eos_after=25" in mine.stderr


def test_settings_that_do_not_go_with_the_plugins_stand_alone():
    done = check("sim", "--set", 'step={"base": 0.001}', "--surfaces", "", "-k", "longer")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tpot" not in done.stderr


def test_progress_is_shown():
    done = check("least_loaded")
    assert "100%]" in done.stderr
    assert "100%]" not in done.stdout


def test_what_is_compared_is_kept_out_of_the_report():
    done = check("broken-wrong-usage", "-k", "usage_adds_up or max_tokens", path=[BROKEN])
    assert done.returncode == 1
    for noise in ("Use -v", "+ where", "- 24", "  -", "AssertionError"):
        assert noise not in done.stdout


def test_advice_names_options():
    done = check("sim", "--set", "tpot=0.002", "--set", "eos_after=500", "--surfaces", "", "-k", "ignore_eos")
    assert done.returncode == 1
    assert "give another --prompt, or settings with which an answer ends (--set KEY=VALUE)" in done.stdout
    assert "set `prompt`" not in done.stdout


def test_one_cause_is_reported_once():
    done = check("broken-none", "--set", "fails=disk full", "--surfaces", "", path=[BROKEN])
    assert done.returncode == 1
    assert done.stdout.count("FAILED") == 1
    assert "why:  the engine does not start: " in done.stdout
    assert "disk full" in done.stdout
    assert " 1 failed" in done.stdout
