"""Find e-mail addresses and phone numbers in text."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import phonenumbers
from trunnion.errors import ConfigError

from .config import Kind, RedactConfig

EMAIL: Final = re.compile(
    r"""(?<![\w.+%-]) (?<![\w.+%-]')     # where a local part begins, and nowhere within it: one try per run
        [\w.+%-]++ (?:'[\w.+%-]++)*+     # bob.smith+news, o'brien
        @ (?: [\w-]+ (?:\.[\w-]+)* \. [^\W\d_] [\w-]* [^\W_]   # mail.example.com; not left-pad@1.3.0
            | \[ [0-9A-Fa-f:.]{2,45} \]                        # [192.0.2.1]
          )""",
    re.VERBOSE,
)
"""An address as people write them: letters of any script, no quoted local parts, no hosts without a dot. Wider than the
RFCs where in doubt, since what is missed reaches the engine. Linear in the length of the text."""
_DIGIT: Final = re.compile(r"\d")


class Found(NamedTuple):
    """Say where something was found, and what it is."""

    start: int
    end: int
    kind: Kind


class Finder:
    """Find what a configuration says is to be masked."""

    def __init__(self, config: RedactConfig) -> None:
        """Take the kinds and the allow list.

        Raises:
            ConfigError: ``default_region`` is no region, or an entry of ``allow`` is neither address nor number.
        """
        region = config.default_region
        if region is not None and region not in phonenumbers.SUPPORTED_REGIONS:
            raise ConfigError(f"default_region {region!r} is no region with phone numbers", param="default_region")
        self._region = region
        self._emails = "email" in config.kinds
        self._phones = "phone" in config.kinds
        self._allowed = frozenset(map(_normal, config.allow))

    def find(self, text: str) -> list[Found]:
        """Return what is to be masked, in the order of the text; nothing overlaps."""
        addresses = list(EMAIL.finditer(text)) if "@" in text else []
        found = []
        if self._emails:
            found = [Found(*match.span(), "email") for match in addresses if not self._is_allowed(match.group())]
        if self._phones and _DIGIT.search(text):
            inside = [match.span() for match in addresses]
            # Without a limit of its own the matcher gives up on texts with many digits, and says nothing.
            for number in phonenumbers.PhoneNumberMatcher(text, self._region, max_tries=len(text) + 1):
                clear = all(number.end <= start or number.start >= end for start, end in inside)
                if clear and _e164(number.number) not in self._allowed:
                    found.append(Found(number.start, number.end, "phone"))
        return sorted(found)

    def _is_allowed(self, address: str) -> bool:
        address = address.lower()
        return address in self._allowed or f"@{address.rpartition('@')[2]}" in self._allowed


def _e164(number: phonenumbers.PhoneNumber) -> str:
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


def _normal(allowed: str) -> str:
    """Return an entry of the allow list in the form that is compared."""
    if "@" in allowed:
        return allowed.strip().lower()
    try:
        return _e164(phonenumbers.parse(allowed))
    except phonenumbers.NumberParseException as error:
        msg = (
            f"allow: {allowed!r} is neither an address, nor @ and a domain, nor a phone number with + and its country "
            f"code"
        )
        raise ConfigError(msg, param="allow") from error
