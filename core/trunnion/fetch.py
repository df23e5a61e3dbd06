"""Define what fetches a model: settings, the job that a source is handed, and the progress it reports."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self

from .errors import ConfigError, TrunnionError

CACHE_VARIABLE: Final = "TRUNNION_CACHE"
TIMEOUT_VARIABLE: Final = "TRUNNION_FETCH_TIMEOUT"
STALL_VARIABLE: Final = "TRUNNION_FETCH_STALL_TIMEOUT"
SOURCES_VARIABLE: Final = "TRUNNION_SOURCES"

Phase = Literal["waiting", "fetching", "checking", "unpacking"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchProgress:
    """Tell how a fetch comes along.

    Attributes:
        reference: What is fetched, as it was written.
        phase: "waiting" while another process on this node fetches the same; else what is being done.
        done: Bytes that are there, those of earlier attempts among them.
        total: Bytes in all; None where the source does not say.
        file: The file at hand, relative to the model.
    """

    reference: str
    phase: Phase = "fetching"
    done: int = 0
    total: int | None = None
    file: str = ""


OnProgress = Callable[[FetchProgress], None]
"""Called from the threads that fetch, about ten times per second at most; it must not block."""
_INTERVAL: Final = 0.1


def default_cache() -> Path:
    """Return the platform's folder for caches, of this program."""
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "trunnion"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "trunnion" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "trunnion"


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchSettings:
    """Say how models are fetched on this node.

    They are the node's business (which disk, how patient), so they come from its environment and not with a spec.

    Attributes:
        cache: Folder of what was fetched (``TRUNNION_CACHE``). What comes from the Hub lies in the Hub's own cache.
        timeout: Seconds that one fetch may take in all, waiting included; None for no limit
            (``TRUNNION_FETCH_TIMEOUT``).
        stall_timeout: Seconds without a byte of progress after which a fetch is given up; None for no limit
            (``TRUNNION_FETCH_STALL_TIMEOUT``).
        options: Settings of each source by its name (``TRUNNION_SOURCES``, a JSON object).
    """

    cache: Path = field(default_factory=default_cache)
    timeout: float | None = None
    stall_timeout: float | None = 120.0
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def from_environment(cls) -> Self:
        """Read the settings. Raises :class:`ConfigError` that names the variable at fault."""
        cache = os.environ.get(CACHE_VARIABLE)
        return cls(
            cache=Path(cache).expanduser().absolute() if cache else default_cache(),
            timeout=_seconds(TIMEOUT_VARIABLE, None),
            stall_timeout=_seconds(STALL_VARIABLE, 120.0),
            options=_options(),
        )


def _seconds(variable: str, default: float | None) -> float | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise ConfigError(f"{variable} must be seconds, 0 for no limit, not {text!r}", param=variable)
    return seconds or None


def _options() -> Mapping[str, Mapping[str, Any]]:
    text = os.environ.get(SOURCES_VARIABLE, "").strip()
    if not text:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{SOURCES_VARIABLE} must be JSON: {error}", param=SOURCES_VARIABLE) from error
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        example = '{"s3": {"options": {"anon": true}}}'
        raise ConfigError(f"{SOURCES_VARIABLE} must be an object of objects, such as {example}", param=SOURCES_VARIABLE)
    return value


def shown(reference: str) -> str:
    """Return a reference as it may be shown: without a password, and without a query that may hold a key."""
    scheme, separator, rest = reference.partition("://")
    if not separator:
        return reference
    rest = rest.partition("#")[0].partition("?")[0]
    host, slash, path = rest.partition("/")
    if scheme in ("http", "https"):  # elsewhere it may be the name of a container, or a revision
        host = host.rpartition("@")[2]
    return f"{scheme}://{host}{slash}{path}"


class FetchJob:
    """Be handed to a source: what to fetch and where to, how to report, and when to give up.

    Attributes:
        reference: The model as it was written, such as ``s3://bucket/model``.
        shown: The same for people and logs, without passwords and keys.
        revision: Branch, tag or commit that was asked for beside the reference; None where none was.
        settings: This node's.
        folder: A folder of this reference's own in the cache; it may not exist yet. Whoever holds the job holds the
            lock of this reference on this node.
    """

    def __init__(
        self,
        reference: str,
        settings: FetchSettings,
        *,
        revision: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.reference = reference
        self.shown = shown(reference)
        self.revision = revision
        self.settings = settings
        key = reference if revision is None else f"{reference}@{revision}"
        digest = hashlib.sha256(key.encode()).hexdigest()[:16]
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", self.shown).strip("-.")[-60:].lstrip("-.")
        self.folder = settings.cache / "models" / f"{slug}-{digest}"
        self.lock_file = settings.cache / "locks" / f"{digest}.lock"
        self.moved = time.monotonic()
        self.last = FetchProgress(reference=self.shown)
        self._told = 0.0
        self._on_progress = on_progress
        self._stopped = threading.Event()
        self._reason: TrunnionError | None = None

    def report(self, phase: Phase = "fetching", done: int = 0, total: int | None = None, file: str = "") -> None:
        """Tell how far the fetch is, and raise if it was given up. Any thread may call it.

        Raises:
            TrunnionError: As of :meth:`check`.
        """
        self.check()
        before, now = self.last, time.monotonic()
        self.last = FetchProgress(reference=self.shown, phase=phase, done=done, total=total, file=file)
        if (before.phase, before.done) != (phase, done):
            self.moved = now
        due = now - self._told >= _INTERVAL or before.phase != phase or done == total
        if self._on_progress is not None and due:
            self._told = now
            self._on_progress(self.last)

    def touch(self) -> None:
        """Note that the work comes along where there are no bytes to report. Raises as :meth:`check`."""
        self.check()
        self.moved = time.monotonic()

    def locked(self, file: Path) -> AbstractContextManager[None]:
        """Hold a further lock for the length of a block: of a folder that is shared beyond this program's cache.

        Raises:
            TrunnionError: As of :meth:`check`, while another process holds it.
        """
        from ._node_lock import node_lock

        return node_lock(self, file)

    def check(self) -> None:
        """Return if the fetch is to go on; call it between chunks.

        Raises:
            TrunnionError: It was given up: Cancelled or DeadlineExceeded. What is there stays for the next attempt.
        """
        if self._reason is not None:
            raise self._reason

    def sleep(self, seconds: float) -> None:
        """Wait before another attempt, but not longer than the fetch is wanted. Raises as :meth:`check`."""
        self._stopped.wait(seconds)
        self.check()

    def give_up(self, reason: TrunnionError) -> None:
        """Make the next :meth:`check` raise this."""
        if self._reason is None:
            self._reason = reason
            self._stopped.set()


class Source(Protocol):
    """Fetch models of some kind of reference. Built by a :class:`~trunnion.plugin.SourcePlugin`'s factory."""

    def fetch(self, job: FetchJob) -> Path:
        """Return the folder or file on this node, fetching what is missing. Blocking, on a thread of its own.

        Called with the node's lock on this reference held, so no other process fetches it meanwhile. Calls
        ``job.report`` as bytes arrive and lets what it raises pass. Whatever is kept half done must be resumed or
        thrown away by the next call, never returned.

        Raises:
            ModelNotFound: There is no such model.
            PermissionDenied: It may not be read with the credentials at hand.
            TrunnionError: Whatever else went wrong.
        """
        ...
