"""Ask for an API key, where keys are configured."""

from __future__ import annotations

import hmac
import os

from trunnion.errors import AuthenticationFailed, ConfigError


class KeyRing:
    """Hold the accepted keys. A comparison takes the same time for right and wrong keys."""

    def __init__(self, variable: str) -> None:
        keys = [key.strip().encode() for key in os.environ.get(variable, "").split(",")]
        self._keys = tuple(key for key in keys if key)
        if not self._keys:
            msg = f"api_keys_env names {variable}, which holds no key; set it to one or more, comma separated"
            raise ConfigError(msg, param="api_keys_env")

    def check(self, headers: dict[bytes, bytes]) -> None:
        """Raise :class:`AuthenticationFailed` unless the request carries one of the keys."""
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        own = headers.get(b"x-api-key", b"").strip()  # where Anthropic's clients put it
        given = [key for key in (bearer.strip() if scheme.lower() == b"bearer" else b"", own) if key]
        matches = [hmac.compare_digest(one, key) for one in given for key in self._keys]
        if not any(matches):
            what = "the API key is wrong" if given or bearer else "an API key is needed"
            raise AuthenticationFailed(f"{what}; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`")
