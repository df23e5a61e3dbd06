"""One node: processes that want the same model, that are killed, that wait too long, and disks that are full."""

import errno
import os
import signal
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from source_lab import finished, model_files, read_all, start_fetch, sums
from source_servers import CHUNK

import trunnion as t
from trunnion.errors import Cancelled, ConfigError, DeadlineExceeded, InternalError

pytestmark = pytest.mark.slow

FILES = model_files(600_000)
WEIGHTS = "/m/model.safetensors"


@pytest.fixture
def reference(web):
    for path, data in FILES.items():
        web.files[f"/m/{path}"] = data
    web.files["/m/SHA256SUMS"] = sums(FILES)
    return f"{web.url}/m"


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_processes_fetch_once(web, reference, tmp_path):
    web.pause = 0.03
    processes = [start_fetch(reference, tmp_path / "cache") for _ in range(2)]
    answers = [finished(process) for process in processes]
    assert answers[0]["path"] == answers[1]["path"]
    assert read_all(answers[0]["path"]) == FILES
    assert {path: web.sent[f"/m/{path}"] for path in FILES} == {path: len(data) for path, data in FILES.items()}
    assert "waiting" in answers[0]["phases"] + answers[1]["phases"]


def test_a_killed_process_is_gone_on_from_and_blocks_nobody(web, reference, tmp_path):
    web.pause = 0.02
    process = start_fetch(reference, tmp_path / "cache")
    wait_for(lambda: web.sent[WEIGHTS] > 10 * CHUNK)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    web.pause = 0.0
    wait_for(lambda: web.gets[WEIGHTS] == 1)
    (part,) = tmp_path.glob("cache/models/*/*.partial/model.safetensors.part")
    kept = part.stat().st_size
    assert kept >= 5 * CHUNK
    time.sleep(0.2)  # the server notices that nobody listens
    before = web.sent[WEIGHTS]
    assert read_all(finished(start_fetch(reference, tmp_path / "cache"))["path"]) == FILES
    assert web.sent[WEIGHTS] - before == len(FILES["model.safetensors"]) - kept


def test_interrupting_leaves_the_part_that_came(web, reference, tmp_path):
    web.pause = 0.02
    process = start_fetch(reference, tmp_path / "cache")
    wait_for(lambda: web.sent[WEIGHTS] > 5 * CHUNK)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode in (-signal.SIGINT, 130, 1)
    assert next(tmp_path.glob("cache/models/*/*.partial/model.safetensors.part")).stat().st_size > 0


def test_no_progress_for_too_long(web, reference, fetch):
    web.hang_after = 5 * CHUNK
    with pytest.raises(
        DeadlineExceeded, match=r"no progress for 0\.6 s .*bytes are there.*TRUNNION_FETCH_STALL_TIMEOUT"
    ) as e:
        fetch(reference, stall_timeout=0.6)
    assert e.value.retryable
    web.hang_after = None
    web.released.set()
    assert read_all(fetch(reference, stall_timeout=5)) == FILES


def test_slow_is_not_stalled(web, reference, fetch):
    web.pause = 0.05
    assert read_all(fetch(reference, stall_timeout=0.6)) == FILES  # takes twice as long in all


def test_a_limit_on_the_whole(web, reference, fetch):
    web.pause = 0.1
    with pytest.raises(DeadlineExceeded, match=r"took longer than 0\.5 s.*TRUNNION_FETCH_TIMEOUT"):
        fetch(reference, timeout=0.5)
    web.pause = 0.0
    assert read_all(fetch(reference, timeout=30)) == FILES


def test_waiting_for_another_process_is_limited_by_the_whole_alone(web, reference, fetch, tmp_path):
    web.pause = 0.05
    process = start_fetch(reference, tmp_path / "cache")
    wait_for(lambda: web.sent[WEIGHTS] > CHUNK)
    with pytest.raises(DeadlineExceeded, match=r"waited 0\.8 s"):
        fetch(reference, timeout=0.8, stall_timeout=0.2)
    assert read_all(finished(process)["path"]) == FILES


def test_giving_up(web, reference, fetch):
    web.pause = 0.05
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(Cancelled, match="was given up"):
        fetch(reference, stop=stop)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk(reference, fetch, monkeypatch, number):
    real = Path.open

    class Full:
        def __init__(self, inner):
            self.inner = inner

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.inner.close()

        def write(self, _):
            raise OSError(number, os.strerror(number))

    def opening(self, mode="r", *args, **more):
        opened = real(self, mode, *args, **more)
        return Full(opened) if mode == "ab" else opened

    monkeypatch.setattr(Path, "open", opening)
    with pytest.raises(InternalError, match=r"no space left in .*TRUNNION_CACHE") as caught:
        fetch(reference)
    assert (caught.value.code, caught.value.http_status) == ("insufficient_storage", 507)


def test_a_disk_that_is_too_small_is_seen_before_anything_is_fetched(web, reference, fetch, monkeypatch):
    import shutil

    from trunnion_sources import folder

    monkeypatch.setattr(folder.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(InternalError, match="bytes are missing, 1 are free") as caught:
        fetch(reference)
    assert caught.value.code == "insufficient_storage"
    assert not web.sent[WEIGHTS]


def test_a_cache_that_cannot_be_written(reference, fetch, tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").write_text("in the way")
    with pytest.raises((ConfigError, InternalError), match="cache"):
        fetch(reference)


@contextmanager
def without_privileges():
    """Be nobody in this block, where this process is root's: root may write anywhere."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_cache_of_somebody_else(reference, fetch):
    fetch(reference)  # imports what it needs, which nobody may not be able to read
    with tempfile.TemporaryDirectory() as locked:
        Path(locked).chmod(0o555)
        with without_privileges(), pytest.raises(ConfigError, match=r"cannot be written.*set TRUNNION_CACHE"):
            fetch(reference, cache=Path(locked))
        Path(locked).chmod(0o700)


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    for name, value in {
        "TRUNNION_CACHE": str(tmp_path / "c"),
        "TRUNNION_FETCH_TIMEOUT": "7.5",
        "TRUNNION_FETCH_STALL_TIMEOUT": "0",
        "TRUNNION_SOURCES": '{"s3": {"chunk_mib": 4}}',
    }.items():
        monkeypatch.setenv(name, value)
    found = t.FetchSettings.from_environment()
    assert (found.cache, found.timeout, found.stall_timeout) == (tmp_path / "c", 7.5, None)
    assert found.options == {"s3": {"chunk_mib": 4}}
    for name, value in (("TRUNNION_FETCH_TIMEOUT", "soon"), ("TRUNNION_SOURCES", "[1]"), ("TRUNNION_SOURCES", "{")):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            with pytest.raises(ConfigError, match=name):
                t.FetchSettings.from_environment()


def test_the_environment_of_a_process_holds(web, reference, tmp_path):
    web.pause = 0.1
    late = finished(start_fetch(reference, tmp_path / "cache", TRUNNION_FETCH_TIMEOUT="1"))["error"]
    assert (late["type"], late["code"]) == ("DeadlineExceeded", "deadline_exceeded")
    assert list(tmp_path.glob("cache/models/*/*.partial"))
    wrong = finished(start_fetch(reference, tmp_path / "cache", TRUNNION_SOURCES='{"web": {"workers": 0}}'))["error"]
    assert (wrong["type"], wrong["param"]) == ("ConfigError", "workers")


def test_the_cache_is_where_the_platform_keeps_such(monkeypatch, tmp_path):
    monkeypatch.delenv("TRUNNION_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert t.FetchSettings.from_environment().cache == tmp_path / "trunnion"
    monkeypatch.setattr("sys.platform", "darwin")
    assert t.FetchSettings.from_environment().cache == Path.home() / "Library" / "Caches" / "trunnion"


def test_a_wrong_setting_of_a_source_is_refused_by_name(fetch):
    with pytest.raises(ConfigError, match="source 'web' has no setting 'read_timout'; did you mean 'read_timeout'"):
        fetch("https://127.0.0.1:1/m", options={"web": {"read_timout": 1}})
