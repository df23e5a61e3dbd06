"""Servers on 127.0.0.1 that speak as Google's and Azure's object stores do, as far as their filesystems ask."""

import base64
import hashlib
import json
import re
from urllib.parse import parse_qs, urlsplit

from source_servers import FileServer

DATE = "Tue, 01 Jul 2025 00:00:00 GMT"


class FakeCloud(FileServer):
    """Hold objects in ``files``, keyed "/bucket/key".

    Attributes:
        wrong: Content by path of which the checksum is told, in place of the object's own.
    """

    def __init__(self):
        super().__init__()
        self.wrong = {}

    def md5(self, path):
        return base64.b64encode(hashlib.md5(self.wrong.get(path, self.files[path])).digest()).decode()

    def below(self, bucket, prefix):
        """Return the paths of the objects of a bucket whose keys begin with the prefix."""
        return [path for path in sorted(self.files) if path.startswith(f"/{bucket}/{prefix}")]


class FakeGoogle(FakeCloud):
    """Answer what gcsfs asks of the JSON API: lists, objects and ranges."""

    def get(self, handler, path):
        matched = re.fullmatch(r"(/download)?/storage/v1/b/([^/]+)/o(?:/(.+))?", path)
        if self.refuse or matched is None:
            return super().get(handler, path)
        download, bucket, key = matched.groups()
        if download:
            return super().get(handler, f"/{bucket}/{key}")
        if key is None:
            prefix = parse_qs(urlsplit(handler.path).query).get("prefix", [""])[0]
            items = [self._facts(bucket, path) for path in self.below(bucket, prefix)]
            return self._json(handler, 200, {"kind": "storage#objects", "items": items})
        if f"/{bucket}/{key}" in self.files:
            return self._json(handler, 200, self._facts(bucket, f"/{bucket}/{key}"))
        return self._json(handler, 404, {"error": {"code": 404, "message": "no such object"}})

    def _facts(self, bucket, path):
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": path.split("/", 2)[2],
            "size": str(len(self.files[path])),
            "md5Hash": self.md5(path),
            "generation": "1",
            "updated": "2025-07-01T00:00:00.000Z",
        }

    def _json(self, handler, status, body):
        return self.plain(handler, status, json.dumps(body).encode(), Content_Type="application/json")


class FakeAzure(FakeCloud):
    """Answer what adlfs asks of a container: lists, properties and ranges. The account is "account"."""

    def get(self, handler, path):
        path = path.removeprefix("/account")
        query = parse_qs(urlsplit(handler.path).query)
        if query.get("comp") == ["list"] and not self.refuse:
            return self._list(handler, path.strip("/"), query.get("prefix", [""])[0])
        if wanted := handler.headers.get("x-ms-range"):
            handler.headers["Range"] = wanted
        return super().get(handler, path)

    def plain(self, handler, status, body, **headers):
        headers.setdefault("Content_Type", "application/xml")
        codes = {403: "AuthorizationFailure", 404: "BlobNotFound"}
        if status in codes:
            headers["x-ms-error-code"] = codes[status]
            body = f"<Error><Code>{codes[status]}</Code><Message>no</Message></Error>".encode()
        return super().plain(handler, status, body, **headers)

    def send(self, handler, path, data, **headers):
        facts = {"Last-Modified": DATE, "x-ms-blob-type": "BlockBlob", "Content-Type": "application/octet-stream"}
        name = "x-ms-blob-content-md5" if handler.headers.get("Range") else "Content-MD5"
        return super().send(handler, path, data, **{**headers, **facts, name: self.md5(path)})

    def _list(self, handler, container, prefix):
        rows = [
            f"<Blob><Name>{path.split('/', 2)[2]}</Name><Properties><Last-Modified>{DATE}</Last-Modified>"
            f"<Etag>0x1</Etag><Content-Length>{len(self.files[path])}</Content-Length>"
            f"<Content-MD5>{self.md5(path)}</Content-MD5><BlobType>BlockBlob</BlobType></Properties></Blob>"
            for path in self.below(container, prefix)
        ]
        body = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{container}">'
            f"<Prefix>{prefix}</Prefix><Blobs>{''.join(rows)}</Blobs><NextMarker/></EnumerationResults>"
        )
        return self.plain(handler, 200, body.encode())
