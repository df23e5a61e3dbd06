"""Help engine plugins with what each of them would write again."""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from .errors import ContextOverflow


def context_overflow(prompt_tokens: int, max_tokens: int | None, context: int) -> ContextOverflow:
    """Return the error for a prompt that, with the tokens asked for, exceeds the context."""
    details = {"prompt_tokens": prompt_tokens, "max_tokens": max_tokens, "context_length": context}
    if max_tokens is None or prompt_tokens >= context:
        message = f"the prompt has {prompt_tokens} tokens and the context holds {context}, output included; shorten it"
        return ContextOverflow(message, param="prompt", details=details)
    message = (
        f"the prompt has {prompt_tokens} tokens and max_tokens is {max_tokens}, more than the context's {context}; "
        f"ask for at most {context - prompt_tokens} tokens or shorten the prompt"
    )
    return ContextOverflow(message, param="max_tokens", details=details)


def fields_in_source(package: str, file: str, classes: Iterable[str]) -> frozenset[str]:
    """Return the annotated fields of classes, read from an installed package's source; empty where it is not there.

    Importing an engine's library takes seconds, parsing one file a tenth of one: so a typing error in a setting that
    is passed on is refused at once. What cannot be read here is for the library itself to check.

    Args:
        package: Name of the installed package, such as "vllm".
        file: Path of the source inside of it, such as "engine/arg_utils.py".
        classes: Names of the classes, such as ("EngineArgs",).
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return frozenset()
    if spec is None or not spec.submodule_search_locations:
        return frozenset()
    try:
        tree = ast.parse((Path(spec.submodule_search_locations[0]) / file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return frozenset()
    return frozenset(
        item.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name in classes
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and not item.target.id.startswith("_")
    )


def first_unknown(given: Iterable[str], known: Iterable[str], *, what: str, otherwise: str) -> str | None:
    """Return why a name is not among those known, with a suggestion; None if all are.

    Args:
        given: Names to look at, in order.
        known: Names there are.
        what: Begins the message: "vLLM has no engine argument".
        otherwise: Ends it where no name is near.
    """
    names = sorted(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            return f"{what} {name!r}; " + (f"did you mean {near[0]!r}?" if near else otherwise)
    return None
