"""Rewrite the generated parts of the pages: ``PYTHONPATH=docs python -m trunnion_docs``."""

from __future__ import annotations

from .blocks import rewrite

for path in rewrite():
    print(path)  # noqa: T201 - a program
