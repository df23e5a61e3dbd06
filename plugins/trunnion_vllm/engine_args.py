"""Know the names of vLLM's engine arguments without importing vLLM, so that a typing error is refused at once."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from trunnion.plugin_tools import fields_in_source, first_unknown


@lru_cache(maxsize=1)
def known_engine_args() -> frozenset[str]:
    """Return the field names of AsyncEngineArgs, read from vLLM's source; empty where vLLM is not installed.

    What cannot be read here is checked again against the class itself when the engine starts.
    """
    return fields_in_source("vllm", "engine/arg_utils.py", ("EngineArgs", "AsyncEngineArgs"))


def unknown_args_message(given: Iterable[str], known: Iterable[str]) -> str | None:
    """Return why a name among ``given`` is not an engine argument, with a suggestion; None if all are known."""
    otherwise = "see the fields of vllm.AsyncEngineArgs"
    return first_unknown(given, known, what="vLLM has no engine argument", otherwise=otherwise)
