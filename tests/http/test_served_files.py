"""Files: kept for their owner alone, streamed in and out, never a path of the caller's making."""

import json
import os
import socket
import time

import httpx
import openai
import pytest
from batch_lab import client_of, serving, upload
from http_fakes import FakeModel
from strict_types import every

from trunnion.errors import ConfigError
from trunnion_http import BatchSettings, HTTPSettings, create_app
from trunnion_http.batches.files import FileStore


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    with serving([FakeModel("m")], folder, max_file_bytes=200_000) as (server, client):
        yield server, client, folder


@pytest.fixture
def server(served):
    return served[0]


@pytest.fixture
def client(served):
    return served[1]


@pytest.fixture
def post(server):
    """Post a form as it stands; return the response."""

    def send(body, content_type="multipart/form-data; boundary=XX"):
        headers = {} if content_type is None else {"content-type": content_type}
        return httpx.post(f"{server.url}/v1/files", content=body, headers=headers, timeout=20)

    return send


def part(name, value, filename=None):
    also = "" if filename is None else f'; filename="{filename}"'
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{also}\r\n\r\n'.encode() + value + b"\r\n"


END = b"--XX--\r\n"
FILE = part("file", b"{}", "a.jsonl")
PURPOSE = part("purpose", b"batch")


def test_a_file_comes_back_as_it_was(client):
    data = bytes(range(256)) * 500
    made = upload(client, data)
    list(every(made))
    assert (made.bytes, made.filename, made.purpose, made.object) == (len(data), "in.jsonl", "batch", "file")
    assert made.expires_at - made.created_at == 30 * 86_400
    assert client.files.retrieve(made.id) == made
    content = client.files.content(made.id)
    assert content.read() == data
    assert content.response.headers["content-disposition"] == "attachment; filename*=UTF-8''in.jsonl"
    deleted = client.files.delete(made.id)
    list(every(deleted))
    assert deleted.deleted
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            gone(made.id)
        assert caught.value.param == "id"
    assert made.id not in [one.id for one in client.files.list()]


def test_a_head_of_content_has_no_content(server, client):
    made = upload(client, b"some bytes")
    response = httpx.head(f"{server.url}/v1/files/{made.id}/content")
    assert (response.status_code, response.headers["content-length"], response.content) == (200, "10", b"")


def test_lists_are_paged(client):
    for one in client.files.list():
        client.files.delete(one.id)
    ids = [upload(client, b"x").id for _ in range(5)]
    assert [one.id for one in client.files.list()] == ids[::-1]
    assert [one.id for one in client.files.list(order="asc")] == ids
    page = client.files.list(order="asc", limit=2)
    assert ([one.id for one in page.data], page.has_more) == (ids[:2], True)
    page = client.files.list(order="asc", limit=2, after=ids[2])
    assert ([one.id for one in page.data], page.has_more) == (ids[3:], False)
    client.files.delete(ids[1])
    assert [one.id for one in client.files.list(after=ids[1])] == ids[:1], "a deleted file still marks a place"
    assert [one.id for one in client.files.list(order="asc", limit=1)] == [ids[0], *ids[2:]], "the client pages on"
    assert client.files.list(purpose="batch_output").data == []
    assert len(client.files.list(purpose="batch").data) == 4


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("limit=10001", "limit"), ("limit=x", "limit"), ("order=up", "order"),
     ("after=../../etc", "after"), ("after=batch_" + "0" * 32, "after"), ("page=2", None)],
)  # fmt: skip
def test_what_a_list_does_not_take_is_refused(server, query, param):
    response = httpx.get(f"{server.url}/v1/files?{query}")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_the_time_a_file_is_kept_may_be_said(client):
    made = upload(client, b"x", expires_after={"anchor": "created_at", "seconds": 3600})
    assert made.expires_at - made.created_at == 3600
    with pytest.raises(openai.BadRequestError, match="from 3600 to 2592000") as caught:
        upload(client, b"x", expires_after={"anchor": "created_at", "seconds": 5})
    assert caught.value.param == "expires_after[seconds]"
    with pytest.raises(openai.BadRequestError) as caught:
        upload(client, b"x", expires_after={"anchor": "now", "seconds": 3600})
    assert caught.value.param == "expires_after[anchor]"


@pytest.mark.parametrize("purpose", ["assistants", "fine-tune", "batch_output", ""])
def test_other_purposes_are_refused(client, purpose):
    with pytest.raises(openai.BadRequestError, match="for batches alone") as caught:
        client.files.create(file=b"x", purpose=purpose)
    assert caught.value.param == "purpose"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "before its last boundary"),
        (b"hello", "cannot be read"),
        (FILE + PURPOSE, "before its last boundary"),
        ((FILE + PURPOSE + END)[:-9], "before its last boundary"),
        (END, "parameter: file"),
        (PURPOSE + END, "parameter: file"),
        (FILE + END, "parameter: purpose"),
        (FILE + FILE + PURPOSE + END, "file twice"),
        (FILE + PURPOSE + PURPOSE + END, "purpose twice"),
        (part("file", b"{}") + PURPOSE + END, "with a filename"),
        (FILE + part("purpose", b"b" * 5000) + END, "longer than 1024"),
        (FILE + part("owner", b"me") + PURPOSE + END, "'owner'"),
        (b"--XX\r\nContent-Disposition: form-data\r\n\r\nx\r\n" + END, "name="),
        (b"--XX\r\nContent-Disposition: attachment; name=file\r\n\r\nx\r\n" + END, "name="),
        (b"--XX\r\n\r\nx\r\n" + END, "name="),
        (b"--XX\r\nno colon here\r\n\r\nx\r\n" + END, "cannot be read"),
        (b"--XX\r\nA: " + b"a" * 10_000 + b"\r\n\r\nx\r\n" + END, "cannot be read"),
        (b"--YY\r\n" + FILE, "cannot be read"),
    ],
)
def test_a_malformed_form_is_a_400_and_leaves_nothing(served, post, body, said):
    response = post(body)
    assert response.status_code == 400
    assert said in response.json()["error"]["message"]
    assert list(served[2].glob("everybody/files/*.part")) == []


@pytest.mark.parametrize(
    "content_type",
    [None, "application/json", "multipart/form-data", "multipart/form-data; boundary=",
     "multipart/form-data; boundary=" + "x" * 500],
)  # fmt: skip
def test_what_is_no_form_is_a_400(post, content_type):
    assert post(FILE + PURPOSE + END, content_type).status_code == 400


def test_preamble_case_and_order_do_not_matter(post):
    body = PURPOSE + b'--XX\r\ncontent-disposition: form-data; name="file"; filename="a"\r\nX-A: b\r\n\r\nx\r\n' + END
    assert post(body).json()["bytes"] == 1


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\x01b", "ä.jsonl", "%2e%2e%2f", ""])
def test_a_filename_is_only_a_name(served, post, name):
    before = {path for path in served[2].rglob("*") if path.suffix not in {".bin", ".json"}}
    response = post(part("file", b"x", name) + PURPOSE + END)
    assert response.json()["filename"] == name
    content = httpx.get(f"{served[0].url}/v1/files/{response.json()['id']}/content")
    assert content.content == b"x"
    assert {path for path in served[2].rglob("*") if path.suffix not in {".bin", ".json"}} == before


@pytest.mark.parametrize("rest", ["", "/content"])
@pytest.mark.parametrize(
    "file_id",
    ["file-x", "file-" + "0" * 32, "file-" + "G" * 32, "..", "%2e%2e", "..%2f..%2fetc%2fpasswd",
     "file-..%2f" + "0" * 29, "%00"],
)  # fmt: skip
def test_an_id_never_becomes_a_path(server, file_id, rest):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:  # clients tidy paths up
        sock.sendall(f"GET /v1/files/{file_id}{rest} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        assert sock.recv(1000).startswith(b"HTTP/1.1 404 ")


def test_the_size_is_limited(server, client, served):
    assert upload(client, b"x" * 200_000).bytes == 200_000
    with pytest.raises(openai.APIStatusError) as caught:
        upload(client, b"x" * 200_001)
    assert (caught.value.status_code, caught.value.code, caught.value.param) == (413, "request_too_large", "file")

    def pieces():
        yield part("file", b"", "a")[:-2]
        for _ in range(5):
            yield b"x" * 50_000
        yield b"\r\n" + PURPOSE + END

    headers = {"content-type": "multipart/form-data; boundary=XX"}
    response = httpx.post(f"{server.url}/v1/files", content=pieces(), headers=headers)
    assert response.status_code == 413, "without a length, too"
    assert list(served[2].glob("everybody/files/*.part")) == []


def test_a_client_that_leaves_leaves_nothing(server, served):
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        head = "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=XX\r\n"
        sock.sendall(head.encode() + b"content-length: 5000\r\n\r\n" + FILE)
        end = time.monotonic() + 10
        while not list(served[2].glob("everybody/files/*.part")):
            assert time.monotonic() < end
            time.sleep(0.01)
    while list(served[2].glob("everybody/files/*.part")):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_download_ends_when_its_client_leaves(server, client, served):
    made = upload(client, b"x")
    folder, size = served[2] / "everybody" / "files", 1 << 40  # more than can be read while a test waits
    os.truncate(folder / f"{made.id}.bin", size)
    meta = folder / f"{made.id}.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "bytes": size}))
    with httpx.stream("GET", f"{server.url}/v1/files/{made.id}/content") as response:
        assert next(response.iter_bytes())[:1] == b"x"
        assert server.app.metrics.in_flight == 1
    end = time.monotonic() + 20
    while server.app.metrics.in_flight:
        assert time.monotonic() < end
        time.sleep(0.02)
    client.files.delete(made.id)


def test_a_slow_client_is_told(tmp_path):
    slow = {"body_timeout": 0.1}
    with serving([FakeModel("m")], tmp_path, http=slow) as (server, _), socket.socket() as sock:
        sock.settimeout(10)
        sock.connect(("127.0.0.1", server.port))
        head = "POST /v1/files HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data; boundary=XX\r\n"
        sock.sendall(head.encode() + b"content-length: 5000\r\n\r\n" + FILE)
        assert sock.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_the_files_of_one_key_are_not_anothers(tmp_path, monkeypatch):
    monkeypatch.setenv("KEYS", "one, two")
    with serving([FakeModel("m")], tmp_path, api_key="one", http={"api_keys_env": "KEYS"}) as (server, one):
        made = upload(one, b"secret")
        with client_of(server, "two") as two, client_of(server, "three") as three:
            for ask in (two.files.retrieve, two.files.content, two.files.delete):
                with pytest.raises(openai.NotFoundError):
                    ask(made.id)
            assert two.files.list().data == []
            with pytest.raises(openai.NotFoundError) as caught:
                two.batches.create(input_file_id=made.id, endpoint="/v1/completions", completion_window="24h")
            assert caught.value.param == "input_file_id"
            with pytest.raises(openai.AuthenticationError):
                three.files.list()
        assert one.files.content(made.id).read() == b"secret"


def test_files_end_when_their_time_is_over(tmp_path):
    with serving([FakeModel("m")], tmp_path, retention=1) as (_, client):
        made = upload(client, b"x")
        end = time.monotonic() + 10
        while client.files.list().data:
            assert time.monotonic() < end
            time.sleep(0.05)
        with pytest.raises(openai.NotFoundError):
            client.files.content(made.id)
        left = FileStore(tmp_path / "everybody" / "files")
        assert left.ids() == [made.id]
        left.sweep()
        assert list(left.folder.iterdir()) == []


def test_none_keeps_files_for_ever(tmp_path):
    with serving([FakeModel("m")], tmp_path, retention=None) as (_, client):
        assert upload(client, b"x").expires_at is None


def test_without_a_folder_it_says_how_to_have_one(web):
    for method, path in (("GET", "/v1/files"), ("POST", "/v1/files"), ("GET", "/v1/batches/batch_x")):
        error = web.request(method, path).json()["error"]
        assert error["code"] == "unsupported_feature"
        assert "--batch-folder DIR" in error["message"]


def test_methods_and_paths_are_those_of_openai(web):
    response = web.put("/v1/files")
    assert (response.status_code, response.headers["allow"]) == (405, "GET,POST")
    for path in ("/v1/files/a/b", "/v1/filesystem", "/v1/batches/a/content", "/v1/files//content", "/v1/batches/a/b/c"):
        assert web.get(path).json()["error"]["code"] == "unknown_url"


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        create_app([FakeModel("m")], HTTPSettings(batches=BatchSettings(folder=str(tmp_path / "file"))))
    assert caught.value.param == "batches.folder"
