"""Define the output formats (structured outputs) a request may demand.

Each kind is one capability: ``output_format.json_schema``, ``output_format.regex`` and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonObject:
    """Demand any JSON object (OpenAI's ``response_format={"type": "json_object"}``)."""

    kind: ClassVar[str] = "json_object"


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonSchema:
    """Demand JSON that satisfies a schema (JSON Schema, as a mapping)."""

    kind: ClassVar[str] = "json_schema"
    schema: Mapping[str, Any]
    name: str = "response"
    strict: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Regex:
    """Demand text that matches a regular expression as a whole."""

    kind: ClassVar[str] = "regex"
    pattern: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Demand one of the given strings."""

    kind: ClassVar[str] = "choice"
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """Demand text of a context-free grammar, in the engine's own notation (vLLM: EBNF or Lark)."""

    kind: ClassVar[str] = "grammar"
    grammar: str


OutputFormat = JsonObject | JsonSchema | Regex | Choice | Grammar
"""A demand on what the output looks like, of one of the five kinds."""
