"""Say whether media are fetched from URLs, from which hosts, and at which addresses. By default none are."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote, urlsplit

from pydantic import Field, field_validator

from .errors import InvalidArgument, UnsupportedFeature
from .settings import Settings

_PORTS: Final = {"http": 80, "https": 443}
_HOST: Final = re.compile(r"(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:\d{1,5})?")
_NAME: Final = re.compile(r"[a-z0-9_.:-]+")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]")


class MediaPolicy(Settings):
    """Limit the media of requests, and say from where they may be fetched. Units are bytes and seconds."""

    allowed_hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that media may be fetched from by URL: 'example.com', '*.example.com' for all below it, or "
        "'*' for any; with ':8080' for another port than 80 of http and 443 of https. One string may hold several, "
        "comma separated. Empty: nothing is fetched.",
    )
    allow_private_addresses: bool = Field(
        default=False,
        description="Also fetch from addresses that are not public, such as 127.0.0.1 and 10.0.0.0/8. For tests, and "
        "for allowed_hosts of which each name is trusted.",
    )
    max_bytes: int = Field(default=20 * 1024 * 1024, ge=1, description="Largest medium, sent along or fetched.")
    max_urls: int = Field(default=16, ge=1, description="Media of one request that are fetched at most.")
    timeout: float = Field(default=10.0, gt=0, description="Seconds one fetch may take in all, redirects included.")
    max_redirects: int = Field(default=3, ge=0, description="Redirects followed in one fetch; each is checked anew.")
    max_concurrent_fetches: int = Field(
        default=8, ge=1, description="Fetches at one time in one pipeline; the others wait."
    )

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, hosts: object) -> object:
        return tuple(map(str.strip, hosts.split(","))) if isinstance(hosts, str) else hosts

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        lowered = tuple(host.lower() for host in hosts)
        for host in lowered:
            if not _HOST.fullmatch(host):
                msg = f"{host!r} is no host; write 'example.com', '*.example.com', '*' or 'example.com:8080'"
                raise ValueError(msg)
        return lowered


class Target(NamedTuple):
    """Hold what one request to a server needs."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def header(self) -> str:
        """Return the value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def check_url(policy: MediaPolicy, url: str, where: str) -> Target:
    """Return what to ask for, if the policy lets it be asked for.

    Raises:
        UnsupportedFeature: Nothing is fetched here.
        InvalidArgument: The URL is none, or its host is not allowed; ``param`` is ``where``.
    """
    if not policy.allowed_hosts:
        raise UnsupportedFeature(
            f"{where}: media are not fetched from URLs here; send the data (a data: URL with base64), or list the host "
            "in allowed_hosts of the media settings",
            param=where,
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if host is not None and not host.isascii():
            host = host.encode("idna").decode("ascii")
    except ValueError as error:  # UnicodeError is one
        raise InvalidArgument(f"{where} is not a valid URL: {error}", param=where) from error
    if "@" in parts.netloc:
        raise InvalidArgument(f"{where} must not hold a user or password", param=where)
    host = (host or "").rstrip(".").lower()
    if parts.scheme not in _PORTS or not _NAME.fullmatch(host) or _UNSAFE.search(url):
        raise InvalidArgument(f"{where} must be a plain http or https URL with a host", param=where)
    port = _PORTS[parts.scheme] if port is None else port
    if not any(_matches(allowed, host, port, parts.scheme) for allowed in policy.allowed_hosts):
        raise InvalidArgument(
            f"{where}: media are not fetched from {host} port {port}; allowed_hosts of the media settings names the "
            "hosts they are fetched from",
            param=where,
        )
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    if parts.query:
        path += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return Target(parts.scheme, host, port, path)


def _matches(allowed: str, host: str, port: int, scheme: str) -> bool:
    name, colon, number = allowed.rpartition(":")
    if not colon or allowed.endswith("]"):
        name, number = allowed, ""
    if port != (int(number) if number else _PORTS[scheme]):
        return False
    name = name.strip("[]")
    return name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))


def check_addresses(policy: MediaPolicy, addresses: Iterable[str], target: Target, where: str) -> list[str]:
    """Return the addresses of a host without doubles, if all of them may be connected to.

    Raises:
        InvalidArgument: One of them is not public: loopback, private, link-local, multicast or reserved.
    """
    found = list(dict.fromkeys(addresses))
    if not policy.allow_private_addresses and not all(map(is_public, found)):
        # The address itself is not told: who may not reach a network should not learn its names either.
        raise InvalidArgument(
            f"{where}: {target.host} has an address that is not public; nothing is fetched from there", param=where
        )
    return found


def is_public(address: str) -> bool:
    """Tell whether an IP address is one of the public internet, and so is the IPv4 address inside it, if any."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:  # such as fe80::1%eth0
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified
