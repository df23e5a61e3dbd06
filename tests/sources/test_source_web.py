"""Models on web servers: archives and folders, resumed, checked, and kept inside their folder."""

import hashlib
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from source_lab import model_files, read_all, sums, tarball
from source_servers import FileServer, served

from trunnion.errors import ConfigError, InvalidArgument, ModelNotFound, PermissionDenied, Transient

pytestmark = pytest.mark.slow

FILES = model_files()


def put(web, files=FILES, *, listed=None, under="/m"):
    """Put a folder with its list on the server, and return its reference."""
    for path, data in files.items():
        web.files[f"{under}/{path}"] = data
    web.files[f"{under}/SHA256SUMS"] = sums(files if listed is None else listed)
    return web.url + under


def test_a_folder_is_fetched_once(web, fetch):
    reference = put(web)
    folder = fetch(reference)
    assert read_all(folder) == FILES
    sent = dict(web.sent)
    assert sent["/m/model.safetensors"] == len(FILES["model.safetensors"])
    assert fetch(reference + "/") != fetch(reference)  # references are told apart by what was written
    assert fetch(reference) == folder
    assert web.gets["/m/model.safetensors"] == 2


def test_a_new_version_is_noticed_and_the_old_one_stays(web, fetch):
    reference = put(web)
    old = fetch(reference)
    newer = {**FILES, "config.json": b'{"model_type": "newer"}'}
    new = fetch(put(web, newer))
    assert (read_all(old), read_all(new)) == (FILES, newer)


def zipped(files, top="model/"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for path, data in files.items():
            made.writestr(top + path, data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("m.tar.gz", tarball),
        ("m.tar", lambda files: tarball(files, mode="w")),
        ("m.tar.xz", lambda files: tarball(files, mode="w:xz", top="")),
        ("m.zip", zipped),
    ],
)
def test_archives_are_unpacked(web, fetch, name, make):
    web.files[f"/{name}"] = make(FILES)
    folder = fetch(f"{web.url}/{name}")
    assert read_all(folder) == FILES
    assert fetch(f"{web.url}/{name}") == folder
    assert web.gets[f"/{name}"] == 1
    model = Path(folder).parent
    assert [path.name for path in model.iterdir()] == [Path(folder).name]  # neither archive nor partial is left


def test_an_answer_that_is_cut_is_gone_on_with(web, fetch):
    reference = put(web)
    web.cuts, web.cut_after = 3, 64 * 1024
    assert read_all(fetch(reference)) == FILES
    assert sum(web.sent[f"/m/{path}"] for path in FILES) == sum(map(len, FILES.values()))  # no byte came twice


def test_a_server_without_ranges_sends_all_again(web, fetch):
    reference = put(web)
    web.ranges = False
    web.cuts, web.cut_after = 1, 64 * 1024
    done = []
    assert read_all(fetch(reference, on_progress=lambda p: done.append((p.done, p.total)))) == FILES
    assert done[-1][0] == done[-1][1] == sum(map(len, FILES.values()))


def test_a_server_that_promises_more_than_it_sends(web, fetch):
    web.files["/m.tar"] = tarball(FILES, mode="w")
    web.extra_length = 1000
    with pytest.raises(Transient, match=r"cannot be read beyond byte \d+ of \d+"):
        fetch(f"{web.url}/m.tar", options={"web": {"attempts": 2}})


def test_a_file_that_is_not_what_the_list_says(web, fetch):
    broken = {**FILES, "model.safetensors": bytes(len(FILES["model.safetensors"]))}
    reference = put(web, broken, listed=FILES)
    with pytest.raises(Transient, match=r"model\.safetensors of .* is corrupt: its sha256 is"):
        fetch(reference)
    assert web.gets["/m/model.safetensors"] == 2
    put(web, FILES)
    assert read_all(fetch(reference)) == FILES
    assert web.gets["/m/config.json"] == 1  # what was sound is kept


def test_a_partial_file_of_another_content_is_found_out(web, fetch, tmp_path):
    """What was left by an earlier attempt is a part of the checksum, too."""
    reference = put(web)
    web.hang_after = 64 * 1024
    with pytest.raises(Exception, match="no progress"):
        fetch(reference, stall_timeout=0.6)
    web.hang_after = None
    web.released.set()
    (part,) = tmp_path.glob("cache/models/*/*.partial/model.safetensors.part")
    part.write_bytes(b"x" * part.stat().st_size)
    assert read_all(fetch(reference)) == FILES


def test_a_pinned_archive(web, fetch):
    data = web.files["/m.tar.gz"] = tarball(FILES)
    good = hashlib.sha256(data).hexdigest()
    assert read_all(fetch(f"{web.url}/m.tar.gz#sha256={good}")) == FILES
    with pytest.raises(Transient, match="corrupt"):
        fetch(f"{web.url}/m.tar.gz#sha256={'0' * 64}")
    with pytest.raises(InvalidArgument, match="sha256="):
        fetch(f"{web.url}/m.tar.gz#md5=1")


def bad_tar(**fields):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo(fields.pop("name", "model/x"))
        for name, value in fields.items():
            setattr(info, name, value)
        tar.addfile(info, io.BytesIO(b""))
    return out.getvalue()


def bad_zip(name, mode=0):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        made.writestr(info, "/etc/passwd")
    return out.getvalue()


@pytest.fixture(params=["of today", "before 3.11.4"])
def python(request, monkeypatch):
    if request.param != "of today":
        monkeypatch.delattr("tarfile.data_filter", raising=False)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.tar", bad_tar(name="../../escaped")),
        ("b.tar", bad_tar(name="/tmp/escaped")),
        ("c.tar", bad_tar(type=tarfile.SYMTYPE, linkname="/etc/passwd")),
        ("d.tar", bad_tar(type=tarfile.LNKTYPE, linkname="../../../x")),
        ("e.tar", bad_tar(type=tarfile.CHRTYPE)),
        ("f.zip", bad_zip("../escaped")),
        ("g.zip", bad_zip("/escaped")),
        ("h.zip", bad_zip("link", 0o120777)),
        ("i.zip", bad_zip("..\\escaped")),
    ],
)
@pytest.mark.usefixtures("python")
def test_archives_that_lead_out_are_refused(web, fetch, tmp_path, name, data):
    web.files[f"/{name}"] = data
    with pytest.raises(InvalidArgument, match="refused"):
        fetch(f"{web.url}/{name}")
    assert not list(tmp_path.rglob("escaped"))


def test_a_broken_archive_is_fetched_again_next_time(web, fetch):
    whole = tarball(FILES)
    web.tags = False
    web.files["/m.tar.gz"] = whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2)
    with pytest.raises(Transient, match="no sound archive"):
        fetch(f"{web.url}/m.tar.gz")
    web.files["/m.tar.gz"] = whole
    assert read_all(fetch(f"{web.url}/m.tar.gz")) == FILES


def test_lists_that_lead_out_are_refused(web, fetch):
    web.files["/m/SHA256SUMS"] = f"{'0' * 64}  ../x\n".encode()
    with pytest.raises(InvalidArgument, match="outside of the model's folder"):
        fetch(f"{web.url}/m")
    web.files["/m/SHA256SUMS"] = b"<html>welcome</html>"
    with pytest.raises(InvalidArgument, match="line 1 is not what sha256sum writes"):
        fetch(f"{web.url}/m")


def test_what_is_not_there_says_how_a_model_is_put_there(web, fetch):
    with pytest.raises(ModelNotFound, match=r"404.*an archive \(\.tar\.gz.*folder with SHA256SUMS.*sha256sum"):
        fetch(f"{web.url}/none")
    with pytest.raises(ModelNotFound, match="404"):
        fetch(f"{web.url}/none.tar.gz")


def test_a_server_that_is_busy_is_asked_again(web, fetch):
    reference = put(web)
    web.refuse, web.refusals = 503, 2
    assert read_all(fetch(reference)) == FILES
    web.refuse, web.refusals = 503, None
    assert read_all(fetch(reference)) == FILES  # kept, and the server cannot be asked
    with pytest.raises(Transient, match=r"503.*nothing of it was fetched before"):
        fetch(f"{web.url}/other", options={"web": {"attempts": 2}})
    web.refuse = 418
    with pytest.raises(Transient, match="418") as caught:
        fetch(f"{web.url}/other")
    assert not caught.value.retryable


@pytest.mark.parametrize("attempts", [1, 3])
def test_attempts_are_counted(web, fetch, attempts):
    web.refuse = 503
    with pytest.raises(Transient):
        fetch(f"{web.url}/m", options={"web": {"attempts": attempts}})
    assert len(web.seen) == attempts


def test_nobody_listens(fetch):
    with served(FileServer()) as url:
        pass
    with pytest.raises(Transient, match="refused"):
        fetch(f"{url}/m.tar", options={"web": {"attempts": 1}})


def test_headers_come_from_the_environment_and_stay_on_their_host(web, fetch, monkeypatch):
    """Not sent to hosts that were not named, nor along a redirect to another one."""
    web.wants = {"X-Key": "k1"}
    reference = put(web)
    with pytest.raises(PermissionDenied, match=r"401.*headers_env"):
        fetch(reference)
    options = {"web": {"headers_env": {"X-Key": "MODELS_KEY"}, "hosts": ["127.0.0.1"]}}
    with pytest.raises(ConfigError, match="MODELS_KEY, which is not set"):
        fetch(reference, options=options)
    monkeypatch.setenv("MODELS_KEY", "k1")
    with pytest.raises(PermissionDenied):
        fetch(reference, options={"web": {**options["web"], "hosts": ["elsewhere"]}})
    assert read_all(fetch(reference, options=options)) == FILES
    other = FileServer()
    other.files["/m.tar"] = tarball(FILES, mode="w")
    with served(other) as url:
        web.redirects["/r.tar"] = f"{url}/m.tar"
        assert read_all(fetch(f"{web.url}/r.tar", options=options)) == FILES

    def carried(server):
        return any(name.lower() == "x-key" for _, _, headers in server.seen for name in headers)

    assert carried(web)
    assert not carried(other)


def test_a_password_in_the_url_is_sent_and_never_shown(web, fetch, tmp_path, caplog):
    web.wants = {"Authorization": "Basic dXNlcjpwYXNz"}
    put(web)
    with caplog.at_level("DEBUG", "trunnion"):
        folder = fetch(web.url.replace("http://", "http://user:pass@") + "/m?signature=hidden")
    assert read_all(folder) == FILES
    with pytest.raises(ModelNotFound) as caught:
        fetch(web.url.replace("http://", "http://user:pass@") + "/none.zip?signature=hidden")
    shown = f"{caught.value} {folder} {caplog.text} {[str(path) for path in tmp_path.rglob('*')]}"
    assert "user:pass" not in shown
    assert "hidden" not in shown


@pytest.mark.parametrize(("workers", "enough"), [(1, {1}), (4, {2, 3, 4})])
def test_workers_fetch_side_by_side(web, fetch, monkeypatch, workers, enough):
    from trunnion_sources import bring

    files = {f"f{n}.bin": bytes([n]) * 40_000 for n in range(4)}
    reference = put(web, files)
    threads, real = set(), bring.download

    def noting(*arguments, **more):
        threads.add(threading.current_thread().name)
        real(*arguments, **more)

    monkeypatch.setattr(bring, "download", noting)
    web.pause = 0.05
    assert read_all(fetch(reference, options={"web": {"workers": workers}})) == files
    assert len(threads) in enough


def test_read_timeout_asks_again(web, fetch):
    """A server that falls silent is asked anew, from where it stopped."""
    reference = put(web)
    web.hang_after = 128 * 1024
    assert read_all(fetch(reference, options={"web": {"read_timeout": 0.3}})) == FILES
    assert web.gets["/m/model.safetensors"] == 2
