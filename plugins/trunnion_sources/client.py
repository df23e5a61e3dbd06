"""Ask web servers, with the standard library: ranges, redirects and credentials are what fetching models needs."""

from __future__ import annotations

import base64
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from email.message import Message
from typing import IO, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from trunnion.errors import ConfigError, ModelNotFound, PermissionDenied, Transient

from .config import WebConfig
from .failures import UnreachableError

_CHUNK: Final = 1 << 18
_BROKEN: Final = (OSError, http.client.HTTPException)
_RANGE: Final = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")
_RETRIED: Final = frozenset({408, 425, 429})
_SERVER_ERROR: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Say what a server tells of a file: its size, and what changes with its content."""

    size: int | None
    tag: str


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but carry credentials to no other host and never from https to http."""

    def redirect_request(  # noqa: PLR0917 - urllib's signature
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        old, where = urlsplit(req.full_url), urlsplit(newurl)
        if new is not None and old.netloc != where.netloc:
            kept = {"range", "if-range", "accept-encoding", "user-agent"}
            new.headers = {name: value for name, value in new.headers.items() if name.lower() in kept}
        if old.scheme == "https" and where.scheme != "https":
            raise urllib.error.HTTPError(newurl, code, "redirects from https to http", headers, fp)
        return new


class WebClient:
    """Read files of web servers."""

    def __init__(self, config: WebConfig, *, own: Mapping[str, Mapping[str, str]] | None = None) -> None:
        """Take the settings, and headers to send by the host that they are for."""
        self._config = config
        self._own = own or {}
        self._opener = urllib.request.build_opener(_Redirects)

    def probe(self, url: str) -> Probe:
        """Ask for the first byte alone: servers that sign URLs for GET refuse HEAD.

        Raises:
            ModelNotFound, PermissionDenied, Transient, UnreachableError: As of :meth:`read`.
        """
        with self._open(url, {"Range": "bytes=0-0"}, empty_is_fine=True) as answer:
            tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            match = _RANGE.match(answer.headers.get("Content-Range") or "")
            if match:
                return Probe(size=None if match[2] == "*" else int(match[2]), tag=tag)
            return Probe(size=_length(answer.headers), tag=tag)

    def text(self, url: str, limit: int) -> str:
        """Return a small file's text. Raises as :meth:`read`."""
        with self._open(url, {}) as answer:
            try:
                data: bytes = answer.read(limit + 1)
            except _BROKEN as error:
                raise UnreachableError(f"{type(error).__name__}: {error}") from error
        if len(data) > limit:
            raise ModelNotFound(f"{_shown(url)} is longer than {limit} bytes, which no such list is", param="model")
        return data.decode("utf-8", errors="replace")

    def read(self, url: str, offset: int, tag: str) -> tuple[int, Generator[bytes, None, None]]:
        """Open a file at an offset; return where the answer begins, 0 where the server cannot or the file changed.

        Raises:
            ModelNotFound: 404 or 410.
            PermissionDenied: 401 or 403.
            Transient: Any other refusal.
            UnreachableError: The server cannot be reached, or says that it is busy.
        """
        headers: dict[str, str] = {}
        if offset:
            headers["Range"] = f"bytes={offset}-"
            if tag and not tag.startswith("W/"):
                headers["If-Range"] = tag
        answer = self._open(url, headers, empty_is_fine=bool(offset))
        if answer.status == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:  # what we hold is longer than the file
            answer.close()
            return 0, self._chunks(self._open(url, {}))
        match = _RANGE.match(answer.headers.get("Content-Range") or "")
        resumed = answer.status == http.client.PARTIAL_CONTENT and match and match[1] and int(match[1]) == offset
        if answer.status == http.client.PARTIAL_CONTENT and not resumed:
            answer.close()
            return 0, self._chunks(self._open(url, {}))
        return offset if resumed else 0, self._chunks(answer)

    @staticmethod
    def _chunks(answer: Any) -> Generator[bytes, None, None]:
        with answer:
            while True:
                try:
                    data: bytes = answer.read1(_CHUNK)
                except _BROKEN as error:
                    raise UnreachableError(f"{type(error).__name__}: {error}") from error
                if not data:
                    return
                yield data

    def _open(self, url: str, headers: Mapping[str, str], *, empty_is_fine: bool = False) -> Any:
        bare, own = self._headers(url)
        request = urllib.request.Request(bare, headers={"Accept-Encoding": "identity", **own, **headers})  # noqa: S310
        try:
            return self._opener.open(request, timeout=self._config.read_timeout)
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and empty_is_fine:
                return error
            with error:
                raise _refusal(url, error) from error
        except urllib.error.URLError as error:
            raise UnreachableError(f"{error.reason}") from error
        except _BROKEN as error:
            raise UnreachableError(f"{type(error).__name__}: {error}") from error

    def _headers(self, url: str) -> tuple[str, Mapping[str, str]]:
        """Return the URL without a password, and the headers to send to its host."""
        parts = urlsplit(url)
        headers = {"User-Agent": "trunnion", **self._own.get(parts.hostname or "", {})}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        if parts.hostname in self._config.hosts:
            for name, variable in self._config.headers_env.items():
                value = os.environ.get(variable)
                if value is None:
                    message = f"the header {name} is to come from {variable}, which is not set"
                    raise ConfigError(message, param="headers_env")
                headers[name] = value
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")), headers


def _length(headers: Message) -> int | None:
    text = headers.get("Content-Length") or ""
    return int(text) if text.isdigit() else None


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    where, said = _shown(url), f"{error.code} {error.reason}"
    if error.code in (http.client.NOT_FOUND, http.client.GONE):
        return ModelNotFound(f"no model at {where}: the server answers {said}", param="model")
    if error.code in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        message = f"{where} may not be read: the server answers {said}; sign the URL, or set headers_env and hosts of "
        return PermissionDenied(message + "the source 'web' in TRUNNION_SOURCES", param="model")
    if error.code >= _SERVER_ERROR or error.code in _RETRIED:
        return UnreachableError(f"the server answers {said}")
    return Transient(f"{where} cannot be read: the server answers {said}", param="model", retryable=False)


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
