"""Make the files of the site that are no pages: too long to keep in the repository, and read by programs alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Final

import trunnion
from trunnion_ray.serve.config_schema import config_schema


def _serve_schema() -> str:
    """Return the JSON Schema of config files for serving, with the settings of this project's engines."""
    registry = trunnion.Registry(trunnion.PluginPolicy())
    ours = [engine for engine in registry.engines() if registry.distribution_of(engine)[0] == "trunnion"]
    return json.dumps(config_schema(ours), indent=2) + "\n"


MADE: Final[Mapping[str, Callable[[], str]]] = {"serve.schema.json": _serve_schema}
"""What makes each file, by its name in the site."""
