"""Touch the openai package, and the HTTP library under it: httpx for openai 2, httpx2 for openai 3. In one module.

The client builds and sends requests; answers are read as bytes. An answer as one of the package's own objects would
cost several times what the network does, per event.
"""

from __future__ import annotations

import functools
import importlib
import ssl
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import openai

from trunnion.errors import ConfigError, InternalError, InvalidArgument, Transient, TrunnionError

from .config import OpenAIConfig
from .errors import complaint, status_error
from .retry import retry_after, should_retry

# The class that openai's own client derives from is httpx's, or httpx2's.
_http: Any = importlib.import_module(openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0])
OMIT: Final[Any] = openai.Omit()
"""As the value of a header: do not send it."""
_SPARE: Final = 8
"""Connections for health checks, which do not wait for requests."""
VERSION: Final = str(openai.__version__)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the process's one TLS context: reading the certificates takes longer than all the rest of a start."""
    context: ssl.SSLContext = _http.create_ssl_context()
    return context


def make_http(config: OpenAIConfig) -> Any:
    """Return an HTTP client with the one pool, over aiohttp: httpx's own transport costs a third more per request."""
    connections = config.max_concurrency + _SPARE
    return openai.DefaultAioHttpClient(
        limits=_http.Limits(
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=config.keepalive,
        ),
        timeout=_timeout(config),
        verify=_tls(),
        follow_redirects=False,  # a POST would be repeated as a GET
    )


def _timeout(config: OpenAIConfig) -> Any:
    return _http.Timeout(config.read_timeout, connect=config.connect_timeout, pool=None)


def make_client(url: str, http: Any, key: str | None, config: OpenAIConfig) -> Any:
    """Return a client for one address over the shared HTTP client."""
    return openai.AsyncOpenAI(
        base_url=url, api_key=key or "none", http_client=http, timeout=_timeout(config), max_retries=0
    )


async def post(
    client: Any,
    path: str,
    body: Mapping[str, Any],
    headers: Mapping[str, Any],
    files: Mapping[str, tuple[str, bytes, str]] | None = None,
) -> Any:
    """Send a request, a form where there are files, and return the answer once its headers are there.

    Its body is not read yet.
    """
    if files is not None:
        headers = {**headers, "Content-Type": "multipart/form-data"}
    return await client.post(
        path,
        body=body,
        files=files,
        cast_to=_http.Response,
        stream=True,
        stream_cls=openai.AsyncStream,
        options={"headers": headers},
    )


async def get(client: Any, path: str, headers: Mapping[str, Any], timeout: float) -> Any:  # noqa: ASYNC109 - httpx's
    """Ask for something and return the answer with its body."""
    return await client.get(path, cast_to=_http.Response, options={"headers": headers, "timeout": timeout})


def timed_out(error: TimeoutError) -> Exception:
    """Return what the HTTP client would raise for the same."""
    made: Exception = _http.ReadTimeout("no answer in time")
    made.__cause__ = error
    return made


def failure(error: Exception, where: str, *, adapter: str | None = None) -> TrunnionError:
    """Return the error of the tree for what the client raised; one of the tree comes back as it is."""
    if isinstance(error, TrunnionError):
        return error
    if isinstance(error, openai.APIStatusError):
        headers = error.response.headers
        said = complaint(error.body, retry_after=retry_after(headers), should_retry=should_retry(headers))
        return status_error(error.status_code, said, where=where, adapter=adapter)
    broken = _broken(error.__cause__ if isinstance(error, openai.APIConnectionError) else error, where)
    if broken is not None:
        return broken
    if isinstance(error, (TypeError, ValueError)):
        return InvalidArgument(f"the request cannot be written as JSON: {error}")
    return InternalError(f"{where} failed: {type(error).__name__}: {error}")


def _broken(cause: BaseException | None, where: str) -> TrunnionError | None:
    """Return the error for a connection that was not made, or broke; None for anything else."""
    cause = _own(cause)
    if isinstance(cause, (_http.UnsupportedProtocol, _http.LocalProtocolError, _http.InvalidURL, aiohttp.InvalidURL)):
        return ConfigError(f"nothing can be sent to {where}: {cause}", param="base_url")
    if isinstance(cause, (_http.TimeoutException, TimeoutError)):
        return Transient(f"{where} gave no sign in time ({type(cause).__name__}); see connect_timeout and read_timeout")
    if isinstance(cause, aiohttp.ClientConnectorError):
        message = f"nobody answers at {where} ({cause}); start the endpoint, or correct base_url"
        return Transient(message, details={"connected": False})
    if isinstance(cause, (_http.HTTPError, aiohttp.ClientError, OSError, ssl.SSLError, EOFError)):
        return Transient(f"{where} broke the connection: {type(cause).__name__}: {cause}")
    return None


def _own(cause: BaseException | None) -> BaseException | None:
    """Return aiohttp's error for what it was turned into: that takes a broken connection for one not made in time."""
    inner = None if cause is None else cause.__cause__
    return inner if isinstance(inner, aiohttp.ClientError) else cause


def headers_of(error: Exception) -> Mapping[str, str]:
    """Return the headers of the answer that the client raised; none where there was no answer."""
    headers: Mapping[str, str] = error.response.headers if isinstance(error, openai.APIStatusError) else {}
    return headers


def lost(error: Exception) -> bool:
    """Tell whether the connection was not made, or broke: another address may do better."""
    cause = _own(error.__cause__ if isinstance(error, openai.APIConnectionError) else error)
    if isinstance(cause, (_http.TimeoutException, TimeoutError)):
        return isinstance(cause, (_http.ConnectTimeout, aiohttp.ConnectionTimeoutError))
    return isinstance(cause, (_http.NetworkError, _http.RemoteProtocolError, aiohttp.ClientError, OSError))
