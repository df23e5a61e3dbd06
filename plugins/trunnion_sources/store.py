"""Fetch from object stores, through fsspec: every object below the reference is a file of the model."""

from __future__ import annotations

import base64
import re
from collections.abc import Generator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final

import fsspec

from trunnion.errors import ConfigError, ModelNotFound, PermissionDenied, Transient, TrunnionError
from trunnion.fetch import FetchJob

from .bring import bring, listed_or_latest
from .config import StoreConfig
from .failures import UnreachableError, refuse_revision
from .remote import Checksum, Read, RemoteFile

_MIB: Final = 1 << 20
_TAGS: Final = (
    "ETag",
    "etag",
    "md5Hash",
    "generation",
    "version_id",
    "LastModified",
    "last_modified",
    "mtime",
    "created",
)
_REFUSALS: Final = (401, 403)
_NO_CREDENTIALS: Final = re.compile(r"Credential|ClientAuthentication|RefreshError|Unauthorized")


class StoreSource:
    """Fetch a folder, or one archive, of an object store."""

    def __init__(self, config: StoreConfig) -> None:
        self._config = config

    def fetch(self, job: FetchJob) -> Path:
        """Return the folder of the version that the store holds now; see :class:`trunnion.fetch.Source`."""
        refuse_revision(job)
        config = self._config
        try:
            fs, root = fsspec.core.url_to_fs(job.reference, **config.options)
        except TypeError as error:
            raise ConfigError(f"the filesystem of {job.shown} refuses its options: {error}", param="options") from error
        except Exception as error:
            raise _mapped(job, error) from error
        listed = listed_or_latest(job, lambda: self._list(job, fs, root), config.attempts)
        if isinstance(listed, Path):
            return listed
        return bring(job, listed, workers=config.workers, attempts=config.attempts)

    def _list(self, job: FetchJob, fs: Any, root: str) -> Sequence[RemoteFile]:
        """Return the files below the root.

        Raises:
            ModelNotFound: There are none.
            UnreachableError: The store cannot be asked.
        """
        try:
            fs.invalidate_cache()
            found: Mapping[str, Mapping[str, Any]] = fs.find(root, detail=True)
            if not found and fs.exists(root):
                found = {root: {}}
            found = {name: info or fs.info(name) for name, info in found.items()}
        except FileNotFoundError:
            found = {}
        except Exception as error:
            failure = _mapped(job, error)
            if isinstance(failure, Transient):
                raise UnreachableError(failure.message) from error
            raise failure from error
        root = root.rstrip("/")
        files = [
            self._file(fs, name, info, _below(name, root))
            for name, info in found.items()
            if info.get("type") != "directory" and not name.endswith("/")
        ]
        files = [file for file in files if not any(fnmatch(file.path, pattern) for pattern in self._config.ignore)]
        if not files:
            raise ModelNotFound(f"no model at {job.shown}: no object has that name or lies below it", param="model")
        return files

    def _file(self, fs: Any, name: str, info: Mapping[str, Any], path: str) -> RemoteFile:
        size = info.get("size")
        return RemoteFile(
            path=path,
            size=None if size is None else int(size),
            tag=next((f"{key}={info[key]}" for key in _TAGS if info.get(key)), ""),
            checksum=checksum_of(name, info),
            checksum_holds=lambda: _is_md5(fs, name),
            read=self._reader(fs, name, size),
        )

    def _reader(self, fs: Any, name: str, size: int | None) -> Read:
        step = self._config.chunk_mib * _MIB

        def chunks(at: int) -> Generator[bytes, None, None]:
            while size is None or at < size:
                try:
                    data = fs.cat_file(name, start=at, end=at + step if size is None else min(at + step, size))
                except FileNotFoundError as error:
                    raise ModelNotFound(f"{name} went away while it was fetched", param="model") from error
                except Exception as error:
                    if _refused(error):
                        raise PermissionDenied(f"{name} may not be read: {error}", param="model") from error
                    raise UnreachableError(f"{type(error).__name__}: {error}") from error
                if not data:
                    return
                yield data
                at += len(data)

        return lambda offset: (offset, chunks(offset))


def _below(name: str, root: str) -> str:
    return name[len(root) :].lstrip("/") if name != root else name.rpartition("/")[2]


def checksum_of(name: str, info: Mapping[str, Any]) -> Checksum | None:
    """Return the checksum that a store gives with an object, if it gives one.

    Google gives ``md5Hash`` and Azure ``content_md5``. S3's ETag is the MD5 of an object that was not uploaded in
    parts, nor encrypted with a key of its own, nor lies in a directory bucket.
    """
    md5 = info.get("md5Hash") or (info.get("content_settings") or {}).get("content_md5")
    if isinstance(md5, str):
        md5 = base64.b64decode(md5)
    if isinstance(md5, bytes | bytearray):
        return Checksum(algorithm="md5", digest=bytes(md5).hex())
    etag = str(info.get("ETag") or "").strip('"').lower()
    if re.fullmatch(r"[0-9a-f]{32}", etag) and "--x-s3/" not in name:
        return Checksum(algorithm="md5", digest=etag)
    return None


def _is_md5(fs: Any, name: str) -> bool:
    """Tell whether an ETag that differs from the MD5 was one: not where S3 encrypts with a key of its own."""
    call = getattr(fs, "call_s3", None)
    if call is None:
        return True
    bucket, key, _ = fs.split_path(name)
    try:
        head = call("head_object", Bucket=bucket, Key=key)
    except Exception:  # noqa: BLE001 - who cannot be asked is believed
        return True
    return not (str(head.get("ServerSideEncryption", "")).startswith("aws:kms") or head.get("SSECustomerAlgorithm"))


def _refused(error: Exception) -> bool:
    """Tell whether a store may not be read. Each filesystem says so in a way of its own."""
    if isinstance(error, PermissionError) or _NO_CREDENTIALS.search(type(error).__name__):
        return True
    status = getattr(error, "status_code", getattr(error, "code", None))  # adlfs; gcsfs, of 401 alone
    return status in _REFUSALS or str(error).startswith("Forbidden: ")  # gcsfs, of 403


def _mapped(job: FetchJob, error: Exception) -> TrunnionError:
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, TrunnionError):
        return error
    if isinstance(error, FileNotFoundError):
        return ModelNotFound(f"no model at {job.shown}: {error}", param="model")
    if _refused(error):
        message = f"{job.shown} may not be read with the credentials of this process: {text}; give it others, or set "
        return PermissionDenied(message + "the filesystem's options in TRUNNION_SOURCES", param="model")
    if isinstance(error, ValueError | ImportError):
        return ConfigError(f"{job.shown} cannot be opened: {text}", param="model")
    return Transient(f"{job.shown} cannot be reached: {text}", param="model")
