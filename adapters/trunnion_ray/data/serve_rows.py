"""Answer rows by a running Serve deployment, through its handle."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any, Final

from trunnion.errors import ConfigError, DeadlineExceeded, InternalError, InvalidArgument, TrunnionError
from trunnion.row_sampling import plain

from .calls import Called

METHOD: Final = "method"
REQUEST: Final = "request_kwargs"
DTYPE: Final = "dtype"


class HandleCaller:
    """Call a method of a deployment for each row, with an object made of ``request_kwargs``.

    Args:
        deployment: Name of the deployment.
        app: Name of its application.
        dtypes: Classes of the requests by the name that the column ``dtype`` gives.
        timeout: Seconds that one call may take; None for no limit.
    """

    def __init__(self, deployment: str, *, app: str, dtypes: Mapping[str, type[Any]], timeout: float | None) -> None:
        self._deployment = deployment
        self._app = app
        self._dtypes = dict(dtypes)
        self._timeout = timeout
        self._whole: set[str] = set()
        self._handle: Any = None
        self._streaming: Any = None

    async def start(self) -> None:
        """Find the deployment. Raises :class:`ConfigError` if it does not run."""
        from ray import serve
        from ray.serve.exceptions import RayServeException

        found = await asyncio.to_thread(serve.status)
        app = found.applications.get(self._app)
        if app is None or self._deployment not in app.deployments:
            there = sorted(app.deployments) if app is not None else sorted(found.applications)
            raise ConfigError(
                f"no deployment {self._deployment!r} runs in the Serve application {self._app!r}; there are: "
                f"{', '.join(there) or 'none'}",
                param="deployment_name" if app is not None else "app_name",
            )
        try:
            self._handle = serve.get_deployment_handle(self._deployment, self._app)
            self._streaming = self._handle.options(stream=True)
        except RayServeException as error:
            raise ConfigError(str(error), param="deployment_name") from error

    async def call(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the deployment answered first, with the request's id.

        Raises:
            DeadlineExceeded: The call took more than its time.
            TrunnionError: What the deployment raised, or the error it answered with.
        """
        method, request, request_id = self._request(row)
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._answer(method, request)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"{self._deployment}.{method} did not answer within {self._timeout:g} s", param="request_timeout_s"
            ) from error
        if hasattr(answer, "model_dump"):
            answer = answer.model_dump()
        if not isinstance(answer, Mapping):
            kind = type(answer).__name__
            raise InternalError(f"{self._deployment}.{method} answered with a {kind}, not with an object")
        said = answer.get("error")
        if isinstance(said, Mapping) and said.get("message"):
            raise _refused(f"{self._deployment}.{method}", said)
        return {**answer, "request_id": request_id}

    def _request(self, row: Mapping[str, Any]) -> tuple[str, Any, str]:
        method = row.get(METHOD)
        if not isinstance(method, str) or not method or method.startswith("_"):
            raise InvalidArgument(f"{METHOD} must name a method of the deployment, not {method!r}", param=METHOD)
        given = plain(row.get(REQUEST))
        if not isinstance(given, dict):
            raise InvalidArgument(f"{REQUEST} must be an object, not {given!r}", param=REQUEST)
        request_id = str(given.get("request_id") or uuid.uuid4().hex)
        request: Any = {"request_id": request_id, **given}
        name = row.get(DTYPE)
        if name is not None:
            if name not in self._dtypes:
                raise InvalidArgument(
                    f"{DTYPE} {name!r} is not in dtype_mapping; it has {', '.join(sorted(self._dtypes)) or 'nothing'}",
                    param=DTYPE,
                )
            try:
                request = self._dtypes[name](**request)
            except (TypeError, ValueError) as error:
                raise InvalidArgument(f"{REQUEST} makes no {name}: {error}", param=REQUEST) from error
        return method, request, request_id

    async def _answer(self, method: str, request: Any) -> Any:
        """Call once as a stream, as methods of models are; one that is no generator is called plainly from then on."""
        if method not in self._whole:
            try:
                return await self._first(method, request)
            except TypeError as error:
                if "generator" not in str(error):
                    raise self._mapped(error) from error
                self._whole.add(method)
            except Exception as error:
                if not isinstance(getattr(error, "cause", None), TypeError) or "generator" not in str(error):
                    raise self._mapped(error) from error
                self._whole.add(method)
        response = getattr(self._handle, method).remote(request)
        try:
            return await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except Exception as error:
            raise self._mapped(error) from error

    async def _first(self, method: str, request: Any) -> Any:
        stream = getattr(self._streaming, method).remote(request)
        try:
            async for item in stream:
                return item
        finally:
            stream.cancel()  # nobody reads on
        raise InternalError(f"{self._deployment}.{method} ended without an answer")

    @staticmethod
    def _mapped(error: Exception) -> TrunnionError:
        """Return the error of the tree; what the deployment's own code raised keeps its words."""
        from trunnion_ray.serve.errors import unwrap

        found = unwrap(error)
        cause = getattr(error, "cause", None)
        if type(found) is InternalError and isinstance(cause, Exception) and not isinstance(cause, TrunnionError):
            kind = InvalidArgument if isinstance(cause, (ValueError, TypeError)) else InternalError
            return kind(f"the deployment raised {type(cause).__name__}: {cause}")
        return found

    async def stop(self) -> None:
        """Let the handle go."""
        self._handle = self._streaming = None


def answered(called: Called) -> Mapping[str, Any]:
    """Return the output columns of an answered row."""
    return {**called.answer, "batch_uuid": called.block, "time_taken": called.seconds}


def _refused(where: str, said: Mapping[str, Any]) -> TrunnionError:
    kind = str(said.get("type") or "")
    made = InvalidArgument if "invalid" in kind.lower() or "BadRequest" in kind else InternalError
    code = said.get("code")
    param = said.get("param")
    return made(
        f"{where} refused the request: {said['message']}",
        code=code if isinstance(code, str) and code else None,
        param=param if isinstance(param, str) else None,
    )
