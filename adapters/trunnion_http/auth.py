"""Ask for an API key, where keys are configured, and tell whose it is."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from pathlib import Path
from typing import Final

from trunnion.errors import AuthenticationFailed, ConfigError

_NAMED: Final = re.compile(r"(?P<name>[A-Za-z0-9_.-]{1,64})\s*:\s*(?P<key>\S+)")


class KeyRing:
    """Hold the accepted keys, each with a name. A comparison takes the same time for right and wrong keys."""

    def __init__(self, variable: str | None = None, file: str | None = None, *, setting: str = "api_keys") -> None:
        """Read the keys of an environment variable, comma separated, and of a file, one a line, ``#`` for remarks.

        A key may have a name before it, ``name: key``; one without is called by a part of its hash.

        Raises:
            ConfigError: There is no such file, or no key; the parameter is ``setting`` with ``_env`` or ``_file``.
        """
        self._keys: dict[bytes, str] = {}
        if variable is not None:
            self._read(os.environ.get(variable, "").split(","))
            if not self._keys:
                msg = f"{setting}_env names {variable}, which holds no key; set it to one or more, comma separated"
                raise ConfigError(msg, param=f"{setting}_env")
        if file is not None:
            try:
                lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"{setting}_file: {file} cannot be read: {error}", param=f"{setting}_file") from error
            before = len(self._keys)
            self._read(lines)
            if len(self._keys) == before:
                msg = f"{setting}_file: {file} holds no key; write one a line, as KEY or NAME: KEY"
                raise ConfigError(msg, param=f"{setting}_file")

    def _read(self, entries: list[str]) -> None:
        for entry in entries:
            text = entry.partition("#")[0].strip()
            if not text:
                continue
            named = _NAMED.fullmatch(text)
            key = (named["key"] if named else text).encode()
            self._keys[key] = named["name"] if named else f"key-{hashlib.sha256(key).hexdigest()[:12]}"

    def check(self, headers: dict[bytes, bytes]) -> str:
        """Return the name of the key that a request carries.

        Raises:
            AuthenticationFailed: It carries none of the keys.
        """
        name, given = self._find(headers)
        if name is None:
            what = "the API key is wrong" if given else "an API key is needed"
            raise AuthenticationFailed(f"{what}; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`")
        return name

    def find(self, headers: dict[bytes, bytes]) -> str | None:
        """Return the name of the key that a request carries; None if it is none of these."""
        return self._find(headers)[0]

    def _find(self, headers: dict[bytes, bytes]) -> tuple[str | None, bool]:
        scheme, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        own = headers.get(b"x-api-key", b"").strip()  # where Anthropic's clients put it
        given = [key for key in (bearer.strip() if scheme.lower() == b"bearer" else b"", own) if key]
        found = None
        for key, name in self._keys.items():  # all of them, however soon one matches
            for one in given:
                if hmac.compare_digest(one, key):
                    found = name
        return found, bool(given or bearer)


def key_ring(variable: str | None, file: str | None, *, setting: str) -> KeyRing | None:
    """Return the keys of a setting; None where it names none. Raises :class:`ConfigError`."""
    return None if variable is None and file is None else KeyRing(variable, file, setting=setting)
