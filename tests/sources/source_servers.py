"""Real servers on 127.0.0.1 that the tests fetch from: well behaved, slow, forgetful and hostile ones."""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

CHUNK = 16 * 1024


class FileServer:
    """Serve bytes by path, and count what was sent.

    Attributes:
        files: Content by path, such as "/model/config.json".
        ranges: Whether parts are sent; without, every answer is the whole.
        cuts: How many answers are cut off after ``cut_after`` bytes.
        extra_length: Bytes that Content-Length promises too many.
        pause: Seconds between chunks.
        hang_after: Bytes after which an answer stops without ending.
        refuse: Status to answer everything with; ``refusals`` times, for ever if None.
        wants: Headers that every request must carry.
        redirects: Paths that lead elsewhere.
    """

    def __init__(self):
        self.files = {}
        self.ranges = True
        self.tags = True
        self.cuts, self.cut_after = 0, 0
        self.extra_length = 0
        self.pause = 0.0
        self.hang_after = None
        self.refuse, self.refusals = None, None
        self.wants = {}
        self.redirects = {}
        self.sent = Counter()
        self.gets = Counter()
        self.seen = []
        self.released = threading.Event()

    def get(self, handler, path):
        """Answer one request."""
        self.seen.append((handler.command, path, dict(handler.headers)))
        if self.refuse and (self.refusals is None or self.refusals > 0):
            if self.refusals is not None:
                self.refusals -= 1
            return self.plain(handler, self.refuse, b"no")
        if any(handler.headers.get(name) != value for name, value in self.wants.items()):
            return self.plain(handler, 401, b"who are you?")
        if path in self.redirects:
            return self.plain(handler, 302, b"", Location=self.redirects[path])
        if path not in self.files:
            return self.plain(handler, 404, b"no such file")
        return self.send(handler, path, self.files[path])

    def plain(self, handler, status, body, **headers):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    def send(self, handler, path, data, **headers):
        """Send a file, or the part that was asked for."""
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "")
        stale = handler.headers.get("If-Range") not in (None, tag)
        begin, end, status = 0, len(data), 200
        if wanted and self.ranges and not stale:
            begin, status = int(wanted[1]), 206
            end = min(int(wanted[2]) + 1, end) if wanted[2] else end
            if begin >= len(data):
                return self.plain(handler, 416, b"", Content_Range=f"bytes */{len(data)}")
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data) + self.extra_length}"
        handler.send_response(status)
        headers["Content-Length"] = str(end - begin + self.extra_length)
        if self.tags:
            headers.setdefault("ETag", tag)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return None
        probe = bool(wanted and wanted[2] == "0")
        self.gets[path] += not probe
        cut = not probe and self.cuts > 0 and end - begin > self.cut_after
        self.cuts -= cut
        return self._body(handler, path, data[begin:end], cut=cut, count=not probe)

    def _body(self, handler, path, body, *, cut, count):
        for at in range(0, len(body), CHUNK):
            if cut and at >= self.cut_after:
                break
            if self.hang_after is not None and at >= self.hang_after:
                self.released.wait(30)
                break
            piece = body[at : at + CHUNK]
            self.sent[path] += len(piece) * count  # before it is sent: whoever got it may look at once
            try:
                handler.wfile.write(piece)
                handler.wfile.flush()
            except OSError:
                self.sent[path] -= len(piece) * count
                break
            time.sleep(self.pause)
        else:
            if not self.extra_length:
                return
        handler.close_connection = True


@contextmanager
def served(server):
    """Run it on a free port; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            server.get(self, unquote(urlsplit(self.path).path))

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def log_message(self, *_):
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_):
            pass

    with Quiet(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            server.released.set()
            http.shutdown()
            thread.join()


class FakeHub(FileServer):
    """Answer what huggingface_hub asks of the Hub: a repository's state, its tree, and its files.

    Attributes:
        repositories: Files by name, by repository; those that end in .safetensors or .bin are large ones (LFS).
        private, gated: Repositories that want the token, or that nobody was granted.
        elsewhere: URLs of files that the Hub sends one to, by path.
        lies: Paths whose content differs from what their digest says; ``lies_left`` times.
    """

    SHA = "a" * 40

    def __init__(self):
        super().__init__()
        self.repositories = {}
        self.revisions = {"main": self.SHA}
        self.private, self.gated = set(), set()
        self.token = "secret"
        self.lies, self.lies_left = {}, 0
        self.elsewhere = {}

    def get(self, handler, path):
        self.seen.append((handler.command, path, dict(handler.headers)))
        if self.refuse:
            return self.plain(handler, self.refuse, b"no")
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", path):
            return self._api(handler, *match.groups())
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._file(handler, path, *match.groups())
        return self.plain(handler, 404, b"{}")

    def _refused(self, handler, name):
        allowed = handler.headers.get("Authorization") == f"Bearer {self.token}"
        if name in self.gated:
            self.plain(handler, 403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="gated")
        elif name not in self.repositories or (name in self.private and not allowed):
            self.plain(handler, 401, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="not found")
        else:
            return False
        return True

    def _api(self, handler, name, what, revision):
        if self._refused(handler, name):
            return None
        sha = self.revisions.get(revision or "main", revision if revision in self.revisions.values() else None)
        if sha is None:
            return self.plain(handler, 404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message="no revision")
        files = [self._entry(path, data) for path, data in self.repositories[name].items()]
        if what == "tree":
            body = [{"type": "file", **entry} for entry in files]
        else:
            siblings = []
            for one in files:
                large = one.get("lfs")
                lfs = {"sha256": large["oid"], "size": large["size"], "pointerSize": 130} if large else None
                facts = {"rfilename": one["path"], "size": one["size"], "blobId": one["oid"], "lfs": lfs}
                siblings.append({name: fact for name, fact in facts.items() if fact is not None})
            body = {"id": name, "modelId": name, "sha": sha, "siblings": siblings, "tags": []}
        return self.plain(handler, 200, json.dumps(body).encode(), Content_Type="application/json")

    def _entry(self, path, data):
        entry = {"path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if path.endswith((".safetensors", ".bin")):
            entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return entry

    def _file(self, handler, url, name, revision, path):
        if self._refused(handler, name):
            return None
        data = self.repositories[name].get(path)
        if data is None:
            return self.plain(handler, 404, b"{}", X_Error_Code="EntryNotFound", X_Error_Message="no file")
        if path in self.elsewhere and handler.command == "GET":
            return self.plain(handler, 302, b"", Location=self.elsewhere[path])
        entry = self._entry(path, data)
        tag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        if path in self.lies and self.lies_left and handler.command == "GET":
            self.lies_left -= 1
            data = self.lies[path]
        return self.send(handler, url, data, ETag=f'"{tag}"', **{"X-Repo-Commit": self.SHA})


class FakeS3(FileServer):
    """Answer what s3fs asks of a bucket: lists (version 2), heads and ranges. ``files`` is keyed "/bucket/key".

    Attributes:
        kms: Whether objects are said to be encrypted with a key of the user's, so that their ETag is no MD5.
        wrong: ETags by path, in place of the MD5.
    """

    def __init__(self):
        super().__init__()
        self.kms = False
        self.wrong = {}

    def get(self, handler, path):
        query = parse_qs(urlsplit(handler.path).query)
        if "list-type" in query and not self.refuse:
            self.seen.append((handler.command, path, dict(handler.headers)))
            return self._list(handler, path.strip("/"), query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
        return super().get(handler, path)

    def send(self, handler, path, data, **headers):
        headers["ETag"] = f'"{self.wrong.get(path) or hashlib.md5(data).hexdigest()}"'
        headers["Last-Modified"] = "Tue, 01 Jul 2025 00:00:00 GMT"
        if self.kms:
            headers["x-amz-server-side-encryption"] = "aws:kms"
        return super().send(handler, path, data, **headers)

    def _list(self, handler, bucket, prefix, delimiter):
        inside = {path.split("/", 2)[2]: data for path, data in self.files.items() if path.startswith(f"/{bucket}/")}
        rows, folders = [], set()
        for key, data in sorted(inside.items()):
            if not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            tag = self.wrong.get(f"/{bucket}/{key}") or hashlib.md5(data).hexdigest()
            rows.append(
                f"<Contents><Key>{key}</Key><LastModified>2025-07-01T00:00:00.000Z</LastModified>"
                f"<ETag>&quot;{tag}&quot;</ETag><Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            )
        rows += [f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>" for folder in sorted(folders)]
        body = (
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{prefix}</Prefix><KeyCount>{len(rows)}</KeyCount><MaxKeys>1000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{''.join(rows)}</ListBucketResult>"
        )
        return self.plain(handler, 200, body.encode(), Content_Type="application/xml")
