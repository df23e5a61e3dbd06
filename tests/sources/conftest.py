"""Fixtures of the sources' tests: servers, and a way to fetch into a cache of the test's own."""

import pytest
import source_lab
from source_servers import FakeHub, FileServer, served

import trunnion as t


@pytest.fixture
def web():
    """Yield a file server; ``url`` is where it is."""
    server = FileServer()
    with served(server) as url:
        server.url = url
        yield server


@pytest.fixture
def hub():
    server = FakeHub()
    with served(server) as url:
        server.url = url
        yield server


@pytest.fixture
def fetch(tmp_path):
    """Fetch in this process; keywords are settings of the fetch, ``options`` those of the sources."""

    def run(reference, *, revision=None, on_progress=None, stop=None, **settings):
        made = t.FetchSettings(**{"cache": tmp_path / "cache", **settings})
        return t.local_path(
            reference,
            registry=source_lab.registry(),
            revision=revision,
            settings=made,
            on_progress=on_progress,
            stop=stop,
        )

    return run


@pytest.fixture
def memory():
    """Yield fsspec's store in memory, empty."""
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    yield MemoryFileSystem()
    MemoryFileSystem.store.clear()
