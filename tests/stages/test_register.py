"""What the plugin registers, and that registering stays light."""

from __future__ import annotations

import subprocess
import sys

from trunnion.plugin import load_factory
from trunnion.stage import Stage, StreamStage
from trunnion_stages import trunnion_stages

from .conftest import context


def test_every_stage_can_be_built(byte_level):
    for plugin in trunnion_stages():
        stage = load_factory(plugin.factory)(context(byte_level), plugin.config())
        assert isinstance(stage, Stage if plugin.shape == "request" else StreamStage)
        assert all(field.description for field in plugin.config.model_fields.values())


def test_stream_stages_are_in_order():
    orders = {plugin.name: plugin.order for plugin in trunnion_stages() if plugin.shape == "stream"}
    assert orders == {"detokenize": 10, "stop_strings": 20, "reasoning": 30, "tool_calls": 40}


def test_registering_loads_nothing_heavy():
    code = (
        "import sys, trunnion_stages; trunnion_stages.trunnion_stages();"
        "assert not {'transformers', 'tokenizers', 'torch', 'jinja2'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
