"""Fetch media over HTTP under a :class:`~trunnion.media_policy.MediaPolicy`: bounded in size, time, redirects, number.

A host is resolved once per request sent, its addresses are checked, and the connection goes to a checked address: what
the name means a moment later does not matter. Proxies of the environment are not used, as they would resolve names
themselves.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple
from urllib.parse import urljoin

from .errors import InvalidArgument
from .media_policy import MediaPolicy, Target, check_addresses, check_url

_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_PIECE: Final = 65536
_BROKEN: Final = (EOFError, ValueError, asyncio.LimitOverrunError)
"""What reading raises where a server does not speak HTTP."""


class _Answer(NamedTuple):
    body: bytes = b""
    location: str | None = None


class MediaFetcher:
    """Fetch media, several at a time. Belongs to one event loop."""

    def __init__(self, policy: MediaPolicy) -> None:
        self._policy = policy
        self._trusted: ssl.SSLContext | None = None
        self._slots = asyncio.Semaphore(policy.max_concurrent_fetches)
        # Threads of its own: a name that takes long to resolve must not keep those of the loop from other work.
        self._names = ThreadPoolExecutor(policy.max_concurrent_fetches, thread_name_prefix="trunnion-media")

    async def fetch(self, url: str, where: str) -> bytes:
        """Return what a URL holds.

        Raises:
            UnsupportedFeature: Nothing is fetched here.
            InvalidArgument: The URL, a redirect or an address is not allowed, what is there is too large, or the
                server did not give it (``retryable`` where it may later); ``param`` is ``where``.
        """
        check_url(self._policy, url, where)  # a refusal need not wait for its turn
        async with self._slots:
            try:
                async with asyncio.timeout(self._policy.timeout):
                    return await self._follow(url, where)
            except TimeoutError as error:
                raise _failure(
                    where, f"fetching it took more than {self._policy.timeout:g} s", retryable=True
                ) from error

    async def _follow(self, url: str, where: str) -> bytes:
        for _ in range(self._policy.max_redirects + 1):
            target = check_url(self._policy, url, where)
            answer = await self._get(target, where)
            if answer.location is None:
                return answer.body
            url = urljoin(url, answer.location)
            if target.scheme == "https" and not url.startswith("https:"):
                raise _failure(where, f"{target.host} redirects from https to something else")
        raise _failure(where, f"there are more than {self._policy.max_redirects} redirects")

    async def _get(self, target: Target, where: str) -> _Answer:
        try:
            reader, writer = await self._connect(target, where)
        except OSError as error:
            raise _failure(where, f"{target.host} cannot be reached: {error}", retryable=True) from error
        try:
            writer.write(
                f"GET {target.path} HTTP/1.1\r\nHost: {target.header}\r\nUser-Agent: trunnion\r\nAccept: */*\r\n"
                "Accept-Encoding: identity\r\nConnection: close\r\n\r\n".encode("ascii")
            )
            return await self._read(reader, target, where)
        except OSError as error:
            raise _failure(where, f"the connection to {target.host} broke: {error}", retryable=True) from error
        except _BROKEN as error:
            raise _failure(where, f"{target.host} did not answer in HTTP, or not to the end", retryable=True) from error
        finally:
            writer.transport.abort()

    async def _connect(self, target: Target, where: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._names, _addresses, target.host, target.port)
        except UnicodeError as error:  # a label that no name can have
            raise _failure(where, f"{target.host} is no name of a host") from error
        addresses = check_addresses(self._policy, found, target, where)
        context, name = None, None
        if target.scheme == "https":
            self._trusted = context = self._trusted or ssl.create_default_context()  # slow: once
            name = target.host
        failure = OSError("it has no address")
        for address in addresses:
            try:
                return await asyncio.open_connection(address, target.port, ssl=context, server_hostname=name)
            except OSError as error:
                failure = error
        raise failure

    async def _read(self, reader: asyncio.StreamReader, target: Target, where: str) -> _Answer:
        status, headers = await _head(reader)
        while 100 <= status < _OK:  # noqa: PLR2004 - an answer is still to come
            status, headers = await _head(reader)
        if status in _REDIRECTS and headers.get("location"):
            return _Answer(location=headers["location"])
        if status != _OK:
            raise _failure(where, f"{target.host} answered with status {status}", retryable=status in _PASSING)
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise _failure(where, f"{target.host} sends it compressed, which was not asked for")
        body = await _body(reader, headers, self._policy.max_bytes)
        if body is None:
            raise _failure(where, f"it has more than {self._policy.max_bytes} bytes")
        return _Answer(body)


def _failure(where: str, what: str, *, retryable: bool = False) -> InvalidArgument:
    return InvalidArgument(f"{where}: {what}", param=where, retryable=retryable)


def _addresses(host: str, port: int) -> list[str]:
    """Return what a name resolves to. Raises OSError, UnicodeError."""
    return [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Return status and headers. Raises ValueError where they are none."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    version, status, *_ = lines[0].split(" ", 2)
    if not version.startswith("HTTP/1."):
        raise ValueError(version)
    pairs = (line.partition(":") for line in lines[1:] if line)
    return int(status), {name.lower(): value.strip() for name, _, value in pairs}


async def _body(reader: asyncio.StreamReader, headers: dict[str, str], most: int) -> bytes | None:
    """Return the body; None once it is larger than ``most`` bytes."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return await _chunks(reader, most)
    if "content-length" in headers:
        length = int(headers["content-length"])
        return None if length > most else await reader.readexactly(length)
    body = bytearray()
    while piece := await reader.read(_PIECE):
        body += piece
        if len(body) > most:
            return None
    return bytes(body)


async def _chunks(reader: asyncio.StreamReader, most: int) -> bytes | None:
    body = bytearray()
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.partition(b";")[0], 16)
        if size == 0:
            return bytes(body)
        if len(body) + size > most:
            return None
        body += await reader.readexactly(size)  # ValueError where it is negative
        if await reader.readexactly(2) != b"\r\n":
            raise ValueError(line)
