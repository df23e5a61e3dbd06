"""Make columns out of a row by Jinja templates: what a function does, for those who write none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from trunnion.errors import ConfigError, InvalidArgument

_ALONE: Final = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
"""An expression that is nothing but a column's name: its value is taken as it is, whatever its type."""


class RowTemplate:
    """Return new columns for a row; good as ``preprocess`` or ``postprocess`` of a processor.

    Values are Jinja templates over the row's columns, also inside lists and objects; ``"{{ column }}"`` alone is the
    column's value itself. Templates run in Jinja's sandbox. A column that a row lacks is an error of that row, and
    so is a null inside a text.
    """

    def __init__(self, columns: Mapping[str, Any], *, where: str = "preprocess") -> None:
        """Compile the templates.

        Args:
            columns: Templates by the name of the column they make.
            where: What errors call them.

        Raises:
            ConfigError: A template is not valid; ``param`` says where.
        """
        self._columns = dict(columns)
        self._where = where
        self._compiled = {name: self._compile(value, f"{where}.{name}") for name, value in self._columns.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as text: compiled templates cannot."""
        return _rebuilt, (self._columns, self._where)

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns for a row. Raises :class:`InvalidArgument` that names the template and what it lacks."""
        return {name: _render(compiled, row) for name, compiled in self._compiled.items()}

    def _compile(self, value: Any, where: str) -> Any:
        if isinstance(value, Mapping):
            return {key: self._compile(item, f"{where}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self._compile(item, f"{where}[{index}]") for index, item in enumerate(value)]
        if not isinstance(value, str) or ("{{" not in value and "{%" not in value):
            return value
        alone = _ALONE.fullmatch(value.strip())
        if alone is not None:
            return _Column(alone.group(1), where)
        import jinja2

        try:
            return _Text(_environment().from_string(value), where)
        except jinja2.TemplateError as error:
            raise ConfigError(f"{where} is no valid Jinja template: {error}", param=where) from error


class _Column:
    """Take a column as it is."""

    def __init__(self, name: str, where: str) -> None:
        self.name, self.where = name, where

    def render(self, row: Mapping[str, Any]) -> Any:
        if self.name not in row:
            message = f"{self.where}: the row has no column {self.name!r}; it has {', '.join(map(str, row)) or 'none'}"
            raise InvalidArgument(message, param=self.where)
        return row[self.name]


class _Text:
    """Render a template to text."""

    def __init__(self, template: Any, where: str) -> None:
        self.template, self.where = template, where

    def render(self, row: Mapping[str, Any]) -> str:
        try:
            text: str = self.template.render(row)
        except Exception as error:
            raise InvalidArgument(f"{self.where}: {error}", param=self.where) from error
        return text


def _render(compiled: Any, row: Mapping[str, Any]) -> Any:
    if isinstance(compiled, _Column | _Text):
        return compiled.render(row)
    if isinstance(compiled, dict):
        return {key: _render(item, row) for key, item in compiled.items()}
    if isinstance(compiled, list):
        return [_render(item, row) for item in compiled]
    return compiled


def _environment() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=_no_null)


def _no_null(value: Any) -> Any:
    """Refuse null, which would be the text "None"."""
    if value is None:
        raise ValueError('a value is null; {{ column or "" }} is empty text in its place')
    return value


def _rebuilt(columns: Mapping[str, Any], where: str) -> RowTemplate:
    return RowTemplate(columns, where=where)
