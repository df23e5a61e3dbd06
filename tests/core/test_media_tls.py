"""Fetching over TLS: the certificate is that of the name, though the connection goes to an address."""

import asyncio
import shutil
import ssl
import subprocess

import pytest
import pytest_asyncio
from media_lab import PNG, answer

from trunnion.errors import InvalidArgument
from trunnion.media_fetch import MediaFetcher
from trunnion.media_policy import MediaPolicy

WHERE = "media[0].url"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Make a certificate for images.example that vouches for itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("tls")
    made = subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=images.example",
         "-addext", "subjectAltName=DNS:images.example", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip(f"openssl makes no certificate: {made.stderr[-200:]}")
    return folder


@pytest_asyncio.fixture
async def server(certificate, monkeypatch):
    """Serve an image over TLS; every name means this machine. Yields what fetches from there, by name."""

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer(PNG))
        await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]

    monkeypatch.setattr("trunnion.media_fetch._addresses", lambda *_: ["127.0.0.1"])
    fetcher = MediaFetcher(MediaPolicy(allowed_hosts=[f"*:{port}"], allow_private_addresses=True))
    yield lambda name: fetcher.fetch(f"https://{name}:{port}/a.png", WHERE)
    server.close()


@pytest.fixture
def trusted(certificate, monkeypatch):
    """Trust the certificate."""
    made = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda: made(cafile=certificate / "cert.pem"))


async def test_the_name_on_the_certificate_counts(server, trusted):
    assert await server("images.example") == PNG
    with pytest.raises(InvalidArgument, match=r"cannot be reached.*[Hh]ostname mismatch") as caught:
        await server("other.example")
    assert caught.value.param == WHERE


async def test_who_vouches_for_a_certificate_counts(server):
    with pytest.raises(InvalidArgument, match=r"self-signed|self signed|unable to get local issuer"):
        await server("images.example")
