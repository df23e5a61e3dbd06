"""Models in Google's and Azure's object stores: the real filesystems, against servers that speak as those do."""

import pytest
from cloud_servers import FakeAzure, FakeGoogle
from source_lab import model_files, read_all
from source_servers import served

from trunnion.errors import ModelNotFound, PermissionDenied, Transient

FILES = model_files()


def google(url):
    return {"endpoint_url": url, "token": "anon"}


def azure(url):
    account = f"AccountName=account;AccountKey=a2V5;BlobEndpoint={url}/account"
    return {"connection_string": f"DefaultEndpointsProtocol=http;{account};"}


@pytest.fixture(params=[("gs", FakeGoogle, google), ("az", FakeAzure, azure)], ids=["gs", "az"])
def cloud(request, monkeypatch):
    """Yield a store with the model's files in it; ``scheme`` leads to it with ``options``."""
    # Read where gcsfs is imported; it would ask another API, in another protocol, what kind of bucket it is.
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    scheme, kind, made = request.param
    server = kind()
    with served(server) as url:
        server.scheme = scheme
        server.options = {scheme: {"options": {**made(url), "skip_instance_cache": True}, "attempts": 1}}
        for path, data in FILES.items():
            server.files[f"/bucket/model/{path}"] = data
        server.files["/bucket/model-two/config.json"] = b"another"
        yield server


def test_every_object_below_is_fetched_once(cloud, fetch):
    folder = fetch(f"{cloud.scheme}://bucket/model", options=cloud.options)
    assert read_all(folder) == FILES
    assert fetch(f"{cloud.scheme}://bucket/model", options=cloud.options) == folder
    assert cloud.gets["/bucket/model/model.safetensors"] == 1


def test_the_checksums_of_the_store_are_held(cloud, fetch):
    cloud.wrong["/bucket/model/config.json"] = b"something else"
    with pytest.raises(Transient, match=r"config\.json of .* is corrupt: its md5"):
        fetch(f"{cloud.scheme}://bucket/model", options=cloud.options)


def test_nothing_is_there(cloud, fetch):
    with pytest.raises(ModelNotFound, match="no object has that name or lies below it"):
        fetch(f"{cloud.scheme}://bucket/none", options=cloud.options)


def test_without_the_right(cloud, fetch):
    cloud.refuse = 403
    with pytest.raises(PermissionDenied, match="may not be read with the credentials of this process"):
        fetch(f"{cloud.scheme}://bucket/model", options=cloud.options)


def test_an_object_that_may_not_be_read(cloud, fetch, monkeypatch):
    sent = type(cloud).send

    def send(self, handler, path, data, **headers):
        if path.endswith("model.safetensors") and handler.command == "GET":
            return self.plain(handler, 403, b"no")
        return sent(self, handler, path, data, **headers)

    monkeypatch.setattr(type(cloud), "send", send)
    with pytest.raises(PermissionDenied, match=r"model\.safetensors may not be read"):
        fetch(f"{cloud.scheme}://bucket/model", options=cloud.options)
