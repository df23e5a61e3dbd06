"""Fill in, while the site is built, what pages say of settings and commands; complain of parts that are out of date."""

from __future__ import annotations

import logging
from typing import Any

from mkdocs.structure.files import File
from trunnion_docs.blocks import rewritten
from trunnion_docs.files import MADE
from trunnion_docs.pages import filled

log = logging.getLogger("mkdocs.hooks")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return a page's Markdown with its generated parts. A warning fails the build, which is strict."""
    if rewritten(markdown) != markdown:
        log.warning("%s has generated parts that differ from the code; run `make docs`", page.file.src_path)
    return filled(markdown)


def on_files(files: Any, *, config: Any, **_: Any) -> Any:
    """Add the files that are made of the code, so that editors can be pointed to them."""
    for name, make in MADE.items():
        files.append(File.generated(config, name, content=make()))
    return files
