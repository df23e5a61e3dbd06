"""Turn output formats into llama.cpp's grammars (GBNF)."""

from __future__ import annotations

from trunnion import Choice, Grammar, JsonObject, JsonSchema, OutputFormat
from trunnion.errors import InvalidArgument, UnsupportedFeature

from .json_grammar import SchemaGrammar, literal


def to_gbnf(wanted: OutputFormat) -> str:
    """Return the grammar of an output format; its first rule is ``root``.

    Raises:
        InvalidArgument: The JSON schema is none.
        UnsupportedFeature: llama.cpp has nothing for it; ``param`` names the format or the schema's keyword.
    """
    if isinstance(wanted, Grammar):
        return wanted.grammar
    if isinstance(wanted, Choice):
        if not wanted.choices:
            raise InvalidArgument("the choice offers nothing; name at least one string", param="output_format.choice")
        return "root ::= " + " | ".join(literal(one) for one in wanted.choices)
    if isinstance(wanted, JsonSchema):
        return SchemaGrammar(wanted.schema).text()
    if isinstance(wanted, JsonObject):
        return SchemaGrammar({"type": "object"}).text()
    raise UnsupportedFeature(f"llama.cpp takes no {wanted.kind}; write it as a grammar (GBNF)", param="output_format")
