"""Turn a reference to a model into a path on this node: a path as it is, all else through a source plugin.

References: a path; ``file:///path``; ``scheme://...`` of any registered source (``hf://org/name@revision``, ``s3://``,
``gs://``, ``az://``, ``https://``); and a bare ``org/name``, which is the Hub's unless a path of that name exists.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from ._node_lock import node_lock
from .engine import AdapterRef
from .errors import Cancelled, DeadlineExceeded, InternalError, ModelNotFound, TrunnionError
from .fetch import FetchJob, FetchSettings, OnProgress, Source

if TYPE_CHECKING:
    from .registry import Registry

HUB_SCHEME: Final = "hf"
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # two letters at least: C:\ is a drive
_HUB_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")
_POLL: Final = 0.05
_GRACE: Final = 5.0
"""Seconds that a source has to end once it was given up; a blocked read may last longer, and is left behind."""


def scheme_of(reference: str) -> str | None:
    """Return the scheme of a reference in lower case; None for a path or a bare name."""
    match = _SCHEME.match(reference)
    return match[1].lower() if match else None


def is_path(reference: str) -> bool:
    """Tell whether a reference can only be a path, or is one that exists."""
    if scheme_of(reference) is not None:
        return False
    return _HUB_NAME.fullmatch(reference) is None or reference.endswith("/") or Path(reference).exists()


def display_name(reference: str) -> str:
    """Return a short name for people and APIs: the folder's, the Hub's without revision, the archive's stem."""
    scheme = scheme_of(reference)
    if scheme is None:
        return Path(reference).resolve().name if Path(reference).exists() else reference
    rest = reference.partition("://")[2].partition("#")[0].partition("?")[0].rstrip("/")
    if scheme == HUB_SCHEME:
        return rest.partition("@")[0]
    return re.sub(r"\.(tar(\.\w+)?|tgz|zip)$", "", rest.rpartition("/")[2]) or rest


def local_path(
    reference: str,
    *,
    registry: Registry | None = None,
    revision: str | None = None,
    settings: FetchSettings | None = None,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> str:
    """Return where a model lies on this node, fetching it if need be. Blocking; see :func:`fetch` for coroutines.

    Args:
        reference: A path, a URI or a bare name of the Hub's.
        registry: Where sources are looked up; this process's by default.
        revision: Branch, tag or commit, for sources that have them.
        settings: Cache, timeouts and the sources' options; the environment's by default.
        on_progress: Told how a fetch comes along.
        stop: Gives the fetch up once set; what is there stays for the next attempt.

    Raises:
        ModelNotFound: There is no such path or model.
        DeadlineExceeded: It took too long, or nothing came for too long.
        Cancelled: ``stop`` was set.
        PluginError: No source for such references can be used here.
        TrunnionError: Whatever else the source failed with.
    """
    if is_path(reference) or scheme_of(reference) == "file":
        return _existing(reference)
    from .registry import get_registry

    registry = registry or get_registry()
    settings = settings or FetchSettings.from_environment()
    plugin = registry.source_for(scheme_of(reference) or HUB_SCHEME)
    source = registry.build_source(plugin, settings.options.get(plugin.name))
    job = FetchJob(reference, settings, revision=revision, on_progress=on_progress)
    return str(_watched(source, job, stop or threading.Event()))


def _existing(reference: str) -> str:
    path = reference
    if scheme_of(reference) == "file":
        path = unquote(urlsplit(reference).path)
    if not Path(path).expanduser().exists():
        raise ModelNotFound(f"no model at {path}: the path does not exist", param="model")
    return str(Path(path).expanduser()) if path.startswith("~") else path


def _watched(source: Source, job: FetchJob, stop: threading.Event) -> Path:
    """Run the source on a daemon thread, and watch over its time: a read that hangs cannot be interrupted."""
    result: Future[Path] = Future()

    def run() -> None:
        try:
            with node_lock(job, job.lock_file):
                result.set_result(source.fetch(job))
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            result.set_exception(error)

    began = time.monotonic()
    thread = threading.Thread(target=run, name="trunnion-fetch", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL)
            if thread.is_alive() and (reason := _reason_to_stop(job, stop, began)):
                raise reason  # noqa: TRY301 - one place hands it to the thread
    except BaseException as error:
        given_up = error if isinstance(error, TrunnionError) else Cancelled(f"fetching {job.shown} was given up")
        job.give_up(given_up)
        thread.join(_GRACE)
        raise
    try:
        return result.result()
    except TrunnionError:
        raise
    except Exception as error:
        message = f"fetching {job.shown} failed: {type(error).__name__}: {error}"
        raise InternalError(message, param="model") from error


def _reason_to_stop(job: FetchJob, stop: threading.Event, began: float) -> TrunnionError | None:
    if stop.is_set():
        return Cancelled(f"fetching {job.shown} was given up{_so_far(job)}")
    settings, now = job.settings, time.monotonic()
    if settings.timeout is not None and now - began > settings.timeout:
        what = "waited" if job.last.phase == "waiting" else "took longer than"
        message = f"fetching {job.shown} {what} {settings.timeout:g} s{_so_far(job)}; give it more time with "
        return DeadlineExceeded(message + "TRUNNION_FETCH_TIMEOUT (seconds, 0 for no limit)", param="model")
    if settings.stall_timeout is not None and job.last.phase != "waiting" and now - job.moved > settings.stall_timeout:
        message = f"fetching {job.shown} made no progress for {settings.stall_timeout:g} s{_so_far(job)}; look at "
        return DeadlineExceeded(
            message + "the network, or be more patient with TRUNNION_FETCH_STALL_TIMEOUT (seconds, 0 for no limit)",
            param="model",
            retryable=True,
        )
    return None


def _so_far(job: FetchJob) -> str:
    if not job.last.done:
        return ""
    of = "" if job.last.total is None else f" of {job.last.total}"
    return f" ({job.last.done}{of} bytes are there, and the next attempt goes on from them)"


async def fetch(
    reference: str,
    *,
    registry: Registry | None = None,
    revision: str | None = None,
    settings: FetchSettings | None = None,
    on_progress: OnProgress | None = None,
    stop: threading.Event | None = None,
) -> str:
    """Return where a model lies on this node, as :func:`local_path` does; cancelling it gives the fetch up."""
    if is_path(reference):
        return _existing(reference)
    giving_up = stop or threading.Event()
    result: Future[str] = Future()

    def run() -> None:
        try:
            path = local_path(
                reference,
                registry=registry,
                revision=revision,
                settings=settings,
                on_progress=on_progress,
                stop=giving_up,
            )
        except BaseException as error:  # noqa: BLE001 - handed to the coroutine
            if not result.cancelled():
                result.set_exception(error)
        else:
            if not result.cancelled():
                result.set_result(path)

    result.set_running_or_notify_cancel()
    # A thread of its own, not the loop's executor, whose threads are waited for when the loop closes.
    threading.Thread(target=run, name="trunnion-source", daemon=True).start()
    try:
        return await asyncio.wrap_future(result)
    except asyncio.CancelledError:
        giving_up.set()
        raise


async def local_adapter(adapter: AdapterRef) -> AdapterRef:
    """Return an adapter with a path on this node: a URI is fetched, a path or a bare name stays as it is.

    For engines that load adapters while they run; those in the settings are brought here by the pipeline.

    Raises:
        TrunnionError: As of :func:`local_path`.
    """
    if scheme_of(adapter.path) is None:
        return adapter
    return replace(adapter, path=await fetch(adapter.path))
