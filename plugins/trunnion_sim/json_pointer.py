"""Follow references within a JSON schema."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from trunnion.errors import InvalidArgument, UnsupportedFeature


def resolve(root: Any, reference: Any) -> Any:
    """Return what a reference such as ``#/$defs/city`` points to.

    Raises:
        UnsupportedFeature: It points out of the schema.
        InvalidArgument: It points nowhere.
    """
    param = "output_format.json_schema"
    if not isinstance(reference, str) or not reference.startswith("#"):
        message = f"$ref {reference!r} leads out of the schema; bring what it means into $defs"
        raise UnsupportedFeature(message, param=param, details={"feature": param})
    found = root
    for part in filter(None, reference[1:].split("/")):
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        try:
            found = found[int(name)] if isinstance(found, list) else found[name]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise InvalidArgument(f"$ref {reference!r} leads nowhere in the schema", param=param) from error
    return found
