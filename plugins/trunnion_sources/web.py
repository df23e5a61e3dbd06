"""Fetch from web servers: an archive, or a folder that ``SHA256SUMS`` lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from trunnion.errors import InvalidArgument, ModelNotFound
from trunnion.fetch import FetchJob

from .archive import SUFFIXES, is_archive
from .bring import bring, listed_or_latest
from .client import WebClient
from .config import WebConfig
from .crew import Crew
from .failures import refuse_revision
from .remote import Checksum, Read, RemoteFile
from .sums import FILE, parse_sums

_LONGEST_LIST: Final = 4 << 20
_PINNED: Final = re.compile(r"sha256[=:]([0-9a-fA-F]{64})")


class WebSource:
    """Fetch a model from a web server."""

    def __init__(self, config: WebConfig) -> None:
        self._config = config
        self._client = WebClient(config)

    def fetch(self, job: FetchJob) -> Path:
        """Return the folder of the version that the server holds now; see :class:`trunnion.fetch.Source`.

        ``https://host/model.tar.gz`` is unpacked; ``#sha256=...`` behind it says what it must hash to. Any other URL
        is a folder: ``SHA256SUMS`` in it, as ``sha256sum`` writes it, lists the files.
        """
        refuse_revision(job)
        config, archive = self._config, is_archive(urlsplit(job.reference).path)
        listed = listed_or_latest(job, lambda: self._archive(job) if archive else self._folder(job), config.attempts)
        if isinstance(listed, Path):
            return listed
        return bring(job, listed, workers=config.workers, attempts=config.attempts)

    def _archive(self, job: FetchJob) -> Sequence[RemoteFile]:
        parts = urlsplit(job.reference)
        checksum = None
        if parts.fragment:
            pinned = _PINNED.fullmatch(parts.fragment)
            if pinned is None:
                message = f"{job.shown}#{parts.fragment}: what may follow '#' is sha256= and 64 hexadecimal digits"
                raise InvalidArgument(message, param="model")
            checksum = Checksum(algorithm="sha256", digest=pinned[1].lower())
        url = urlunsplit(parts._replace(fragment=""))
        probe = self._client.probe(url)
        name = unquote(parts.path.rpartition("/")[2])
        read = self._reader(url, probe.tag)
        return [RemoteFile(path=name, size=probe.size, tag=probe.tag, checksum=checksum, read=read)]

    def _folder(self, job: FetchJob) -> Sequence[RemoteFile]:
        try:
            text = self._client.text(_in_folder(job.reference, FILE), _LONGEST_LIST)
        except ModelNotFound as error:
            message = (
                f"{error}. A model on a web server is an archive ({', '.join(SUFFIXES)}) or a folder with {FILE}, "
            )
            message += f"made in it by: find . -type f ! -name {FILE} -exec sha256sum {{}} + > {FILE}"
            if urlsplit(job.reference).hostname in ("huggingface.co", "hf.co"):
                message = f"{job.shown} is a page; write hf://org/name for a model on the Hub"
            raise ModelNotFound(message, param="model") from error
        sums = parse_sums(text, f"{job.shown}/{FILE}")
        files: list[RemoteFile] = []

        def look(path: str) -> None:
            url = _in_folder(job.reference, path)
            probe = self._client.probe(url)
            job.touch()
            checksum = Checksum(algorithm="sha256", digest=sums[path])
            read = self._reader(url, probe.tag)
            files.append(RemoteFile(path=path, size=probe.size, tag=sums[path], checksum=checksum, read=read))

        Crew(job, workers=self._config.workers).run(sums, look)
        return files

    def _reader(self, url: str, tag: str) -> Read:
        return lambda offset: self._client.read(url, offset, tag)


def _in_folder(reference: str, path: str) -> str:
    """Return the URL of a file in the folder; a query, such as a signature, is kept."""
    parts = urlsplit(reference)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(path)}", fragment=""))
