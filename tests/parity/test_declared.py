"""Hold every engine to what it declares, field by field: yes has an effect, no is refused by name, unknown says why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

import trunnion
from trunnion import FEATURES, SyncPipeline
from trunnion.capabilities import HINTS
from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion_cli.capability_table import support_cell

from .effects import EFFECTS, EXAMPLES, Ask

CLASSIFIED = [feature for feature in FEATURES if feature not in HINTS]
ELSEWHERE = {"priority"}
"""Seen only in a queue: the tests of each engine that has it make one."""


@pytest.fixture(scope="module")
def simulated() -> Iterator[SyncPipeline]:
    with SyncPipeline(trunnion.engine_spec("sim", None, {"eos_after": 12, "adapters": ["capitals"]})) as pipeline:
        yield pipeline


@pytest.mark.engine
@pytest.mark.parametrize("feature", CLASSIFIED)
def test_declared_means_true(pipeline: SyncPipeline, feature: str) -> None:
    check(pipeline, feature)


@pytest.mark.parametrize("feature", CLASSIFIED)
def test_declared_means_true_of_the_simulator(simulated: SyncPipeline, feature: str) -> None:
    check(simulated, feature)


def check(pipeline: SyncPipeline, feature: str) -> None:
    """Hold what the started engine declares of a feature true."""
    info, ask = pipeline.pipeline.info, Ask(pipeline)
    registry = trunnion.get_registry()
    plugin = replace(registry.engine(info.engine), capabilities=info.capabilities)
    declared = support_cell(feature, plugin, registry.stages())
    if declared == "no":
        with pytest.raises(UnsupportedFeature) as refused:
            ask(**EXAMPLES[feature])
        assert refused.value.details["feature"] == feature
        assert refused.value.param in feature
    elif declared in ("yes", "by a stage"):
        if feature not in ELSEWHERE:
            EFFECTS[feature](ask)
    else:
        assert info.capabilities.reasons[feature]
        with pytest.raises((UnsupportedFeature, InvalidArgument)):  # the engine's own refusal, in our words
            ask(**EXAMPLES[feature])


def test_every_classified_field_has_an_effect_and_an_example() -> None:
    never = {"handoff", "media.image", "media.audio", "media.video"}  # no engine here has them
    assert set(EFFECTS) | ELSEWHERE | never == set(CLASSIFIED) == set(EXAMPLES)
