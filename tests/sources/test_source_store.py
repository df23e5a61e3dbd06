"""Models in object stores: fsspec's store in memory, and S3's protocol over HTTP."""

import hashlib
from pathlib import Path

import pytest
from source_lab import model_files, read_all, tarball
from source_servers import FakeS3, served

from trunnion.errors import ConfigError, ModelNotFound, PermissionDenied, PluginNotInstalled, Transient
from trunnion_sources.store import checksum_of

FILES = model_files()


def put(memory, files=FILES, under="/bucket/model"):
    for path, data in files.items():
        memory.pipe_file(f"{under}/{path}", data)
    return f"memory:/{under}"


def test_every_object_below_is_fetched(memory, fetch):
    reference = put(memory)
    memory.pipe_file("/bucket/model-two/config.json", b"another")
    reports = []
    folder = fetch(reference, on_progress=reports.append)
    assert read_all(folder) == FILES
    assert reports[-1].done == reports[-1].total == sum(map(len, FILES.values()))
    assert fetch(reference) == folder


@pytest.mark.parametrize("old", [False, True], ids=["", "Python before 3.11.4"])
def test_an_archive_is_unpacked(memory, fetch, monkeypatch, old):
    if old:
        monkeypatch.delattr("tarfile.data_filter", raising=False)
    memory.pipe_file("/bucket/model.tar.gz", tarball(FILES))
    assert read_all(fetch("memory://bucket/model.tar.gz")) == FILES


def test_nothing_is_there(memory, fetch):
    with pytest.raises(ModelNotFound, match="no object has that name or lies below it"):
        fetch("memory://bucket/none")


def test_revisions_are_for_the_hub(memory, fetch):
    with pytest.raises(ConfigError, match="revision 'v1' is for models on the Hub"):
        fetch(put(memory), revision="v1")


def test_a_damaged_file_in_the_cache_is_fetched_again(memory, fetch):
    reference = put(memory)
    folder = Path(fetch(reference))
    (folder / "model.safetensors").write_bytes(b"short")
    (folder / "config.json").unlink()
    assert read_all(fetch(reference)) == FILES


def test_a_changed_object_is_another_version(memory, fetch):
    old = fetch(put(memory))
    new = fetch(put(memory, {**FILES, "config.json": b"{}      {}"}))
    assert old != new
    assert read_all(old) == FILES


def test_ignore_leaves_files_out(memory, fetch):
    reference = put(memory, {**FILES, "optimizer.pt": b"much"})
    assert read_all(fetch(reference, options={"memory": {"ignore": ["optimizer*"]}})) == FILES


def test_chunks_are_as_large_as_asked(memory, fetch, monkeypatch):
    reference = put(memory, {"model.bin": bytes(3 << 20)})
    asked, cat = [], type(memory).cat_file

    def cat_file(self, path, start=None, end=None, **more):
        asked.append(end - start)
        return cat(self, path, start=start, end=end, **more)

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    fetch(reference, options={"memory": {"chunk_mib": 2}})
    assert asked == [2 << 20, 1 << 20]


@pytest.mark.parametrize("attempts", [1, 3])
def test_attempts_that_bring_nothing_are_counted(memory, fetch, monkeypatch, attempts):
    reference = put(memory, {"model.bin": b"x"})
    asked = []

    def cat_file(self, path, start=None, end=None, **more):
        asked.append(path)
        raise OSError("the wire is loose")

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    with pytest.raises(Transient, match="beyond byte 0 of 1: OSError: the wire is loose"):
        fetch(reference, options={"memory": {"attempts": attempts}})
    assert len(asked) == attempts


def test_workers_fetch_side_by_side(memory, fetch, monkeypatch):
    import threading

    reference = put(memory, {f"f{n}.bin": bytes([n]) for n in range(3)})
    together = threading.Barrier(3)
    cat = type(memory).cat_file

    def cat_file(self, path, start=None, end=None, **more):
        together.wait(timeout=10)
        return cat(self, path, start=start, end=end, **more)

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    assert len(read_all(fetch(reference, options={"memory": {"workers": 3}}))) == 3


def test_checksums_of_the_store_are_held(memory, fetch):
    put(memory)
    assert read_all(fetch("sums://bucket/model")) == FILES
    with pytest.raises(Transient, match=r"its md5 is .* fetched twice and thrown away"):
        fetch("sums://bucket/model/config.json", options={"sums": {"options": {"lie": True}}})


def test_options_go_to_the_filesystem(memory, fetch):
    put(memory)
    with pytest.raises(ConfigError, match="refuses its options"):
        fetch("sums://bucket/model", options={"sums": {"options": {"lie": True, "unheard": 1, "of": 2}}})


def test_checksums_by_store():
    digest = hashlib.md5(b"x").hexdigest()
    import base64

    google = base64.b64encode(bytes.fromhex(digest)).decode()
    assert checksum_of("b/k", {"md5Hash": google}).digest == digest
    assert checksum_of("b/k", {"content_settings": {"content_md5": bytearray.fromhex(digest)}}).digest == digest
    assert checksum_of("b/k", {"ETag": f'"{digest}"'}).digest == digest
    assert checksum_of("b/k", {"ETag": f'"{digest}-12"'}) is None  # uploaded in parts
    assert checksum_of("b--use1-az4--x-s3/k", {"ETag": f'"{digest}"'}) is None  # a directory bucket
    assert checksum_of("b/k", {"content_settings": {"content_md5": None}}) is None


def test_a_store_that_cannot_be_asked(memory, fetch, monkeypatch):
    reference = put(memory)

    def find(self, *_, **__):
        raise ConnectionError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "find", find)
        with pytest.raises(Transient, match=r"no route.*nothing of it was fetched before"):
            fetch(reference, options={"memory": {"attempts": 1}})
    folder = fetch(reference)
    monkeypatch.setattr(type(memory), "find", find)
    assert fetch(reference) == folder


@pytest.mark.parametrize(("scheme", "library"), [("gs", "gcsfs"), ("az", "adlfs"), ("s3", "s3fs")])
def test_a_missing_library_says_what_to_install(fetch, scheme, library, monkeypatch):
    import trunnion._versions as versions

    real = versions.installed
    monkeypatch.setattr(versions, "installed", lambda need: None if need.module == library else real(need))
    with pytest.raises(PluginNotInstalled, match=rf"needs {library}.*pip install 'trunnion\[{scheme}\]'"):
        fetch(f"{scheme}://bucket/model")


@pytest.fixture
def s3(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    server = FakeS3()
    with served(server) as url:
        server.url = url
        server.options = {"s3": {"options": {"endpoint_url": url, "skip_instance_cache": True}, "attempts": 2}}
        for path, data in FILES.items():
            server.files[f"/bucket/model/{path}"] = data
        yield server


def test_s3_over_http(s3, fetch):
    folder = fetch("s3://bucket/model", options=s3.options)
    assert read_all(folder) == FILES
    assert fetch("s3://bucket/model", options=s3.options) == folder
    assert s3.gets["/bucket/model/model.safetensors"] == 1


def test_s3_etags_are_held_unless_the_object_is_encrypted_with_a_key(s3, fetch):
    s3.wrong["/bucket/model/config.json"] = "0" * 32
    with pytest.raises(Transient, match=r"config\.json of s3://bucket/model is corrupt: its md5"):
        fetch("s3://bucket/model", options=s3.options)
    s3.kms = True
    assert read_all(fetch("s3://bucket/model", options=s3.options)) == FILES


def test_s3_without_the_right(s3, fetch):
    s3.refuse = 403
    with pytest.raises(PermissionDenied, match="may not be read with the credentials of this process"):
        fetch("s3://bucket/model", options=s3.options)
