"""Make text in a demanded output format."""

from __future__ import annotations

import itertools
import json
from typing import Final

from trunnion import Choice, JsonObject, JsonSchema, OutputFormat, Regex
from trunnion.errors import InvalidArgument, UnsupportedFeature

from ._regex import CannotMatch, matching
from .json_value import json_value
from .tokens import draw

_ANY_OBJECT: Final = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "count": {"type": "integer"}, "tags": {"type": "array"}},
    "required": ["name", "count"],
}


def structured_text(wanted: OutputFormat, seed: str) -> str:
    """Return a text that has the format.

    Raises:
        UnsupportedFeature: The format asks for more than can be made.
        InvalidArgument: It contradicts itself.
    """
    if isinstance(wanted, Choice):
        if not wanted.choices:
            raise InvalidArgument("the choice has no choices; give at least one", param="output_format.choice")
        return wanted.choices[draw(seed, 1)[0] % len(wanted.choices)]
    if isinstance(wanted, JsonSchema):
        return json.dumps(json_value(wanted.schema, seed), ensure_ascii=False)
    if isinstance(wanted, JsonObject):
        return json.dumps(json_value(_ANY_OBJECT, seed))
    if isinstance(wanted, Regex):
        source = itertools.chain.from_iterable(draw(f"{seed}/{block}", 64) for block in itertools.count())
        try:
            return matching(wanted.pattern, source, whole=True)
        except CannotMatch as error:
            raise _refused("regex", str(error)) from error
    raise _refused(wanted.kind, "it has no parser for grammars")


def may_be_padded(wanted: OutputFormat) -> bool:
    """Tell whether blanks may follow without breaking the format."""
    return isinstance(wanted, JsonObject | JsonSchema)


def _refused(kind: str, why: str) -> UnsupportedFeature:
    feature = f"output_format.{kind}"
    return UnsupportedFeature(
        f"the simulated engine cannot make this {kind}: {why}", param=feature, details={"feature": feature}
    )
