"""The kit's tables cover every field of a request."""

from trunnion import SamplingParams
from trunnion.capabilities import FEATURES, HINTS
from trunnion.requests import GenerateRequest
from trunnion.testing.effects import EFFECTS
from trunnion.testing.examples import EXAMPLES
from trunnion.testing.fields import CLASSIFIED

PLUGINS_OWN = {"handoff", "media.image", "media.audio", "media.video"}
"""Their effect depends on the engine or the model, so the suite brings the test."""


def test_every_classified_field_has_an_effect_and_an_example():
    assert set(CLASSIFIED) == set(FEATURES) - HINTS
    assert set(EXAMPLES) == set(CLASSIFIED)
    assert set(EFFECTS) == set(CLASSIFIED) - PLUGINS_OWN


def test_examples_name_fields_there_are():
    known = {*SamplingParams.__dataclass_fields__, *GenerateRequest.__dataclass_fields__}
    assert {name for fields in EXAMPLES.values() for name in fields} <= known
