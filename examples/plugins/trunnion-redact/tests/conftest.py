"""Fixtures: a pipeline on the simulated engine that echoes, with the plugin as it is installed."""

import socket

import pytest
import trunnion as t

pytest_plugins = ["trunnion.testing"]

ECHO = {"output": "echo"}


@pytest.fixture
def opened():
    """Return a function that opens a pipeline on the simulated engine with settings of the redact hooks."""

    def open_it(engine=None, *, stages=(), **settings):
        spec = t.engine_spec("sim", None, {**ECHO, **(engine or {})})
        return t.open_pipeline(t.PipelineSpec(engine=spec, hooks={"redact": settings}, stages=tuple(stages)))

    return open_it


REFUSES_VALUES = {**ECHO, "default_max_tokens": 100, "fault": "refuse", "fault_marker": "@example.com"}
"""Settings of an engine that refuses a prompt in which it sees an address of example.com."""


def free_port():
    """Return a TCP port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
