"""Let docstrings, which name objects by Sphinx's roles, be read as Markdown."""

from __future__ import annotations

import re
from typing import Any, Final

import griffe

_ROLE: Final = re.compile(r":(?:class|func|meth|data|mod|attr):`~?([^`]+)`")


class Roles(griffe.Extension):
    """Turn :class:`~package.Name` into the last part of the name, as code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            text = _ROLE.sub(lambda role: f"`{role[1].split('.')[-1]}`", obj.docstring.value)
            obj.docstring.value = text.replace("::\n\n", ":\n\n")
