"""A plugin that imports its library when it registers."""

import transformers  # noqa: F401
from broken_engines import plugin

import trunnion as t


@t.hookimpl
def trunnion_engines():
    return [plugin("imports-its-library")]
