"""Where media are fetched from, and what a server cannot do to whoever fetches. The servers are real ones."""

import asyncio
import threading

import pytest
import pytest_asyncio
from media_lab import PNG, answer, media_server
from pydantic import ValidationError

from trunnion.errors import InvalidArgument, UnsupportedFeature
from trunnion.media_fetch import MediaFetcher
from trunnion.media_policy import MediaPolicy, check_url, is_public

WHERE = "messages[0].content[0].image_url.url"


@pytest_asyncio.fixture
async def server():
    async with media_server() as served:
        served.add("/a.png", answer(PNG, "Content-Type: text/html"))
        yield served


def policy(server, **settings):
    return MediaPolicy(**{"allowed_hosts": [server.host], "allow_private_addresses": True, **settings})


async def refused(fetch, error=InvalidArgument):
    with pytest.raises(error) as caught:
        await fetch
    assert caught.value.param == WHERE
    assert caught.value.message.startswith(WHERE)
    return caught.value


async def test_a_file_is_fetched(server):
    assert await MediaFetcher(policy(server)).fetch(f"{server.url}/a.png", WHERE) == PNG
    (asked,) = server.asked
    assert asked.startswith("GET /a.png HTTP/1.1\r\n")
    assert f"\r\nHost: {server.host}\r\n" in asked


async def test_nothing_is_fetched_unless_hosts_are_named(server):
    error = await refused(MediaFetcher(MediaPolicy()).fetch(f"{server.url}/a.png", WHERE), UnsupportedFeature)
    assert "allowed_hosts" in error.message
    assert server.asked == []


async def test_addresses_that_are_not_public_are_refused_unless_allowed(server):
    fetcher = MediaFetcher(policy(server, allow_private_addresses=False))
    error = await refused(fetcher.fetch(f"{server.url}/a.png", WHERE))
    assert "not public" in error.message
    named = MediaFetcher(MediaPolicy(allowed_hosts=[f"localhost:{server.port}"]))
    await refused(named.fetch(f"http://localhost:{server.port}/a.png", WHERE))
    # 127.0.0.1 in one number, which resolvers understand as well
    odd = MediaFetcher(MediaPolicy(allowed_hosts=[f"*:{server.port}"]))
    await refused(odd.fetch(f"http://2130706433:{server.port}/a.png", WHERE))
    assert server.asked == []


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("::ffff:93.184.216.34", True),
        ("64:ff9b::5db8:d822", True),
        ("127.0.0.1", False), ("10.1.2.3", False), ("172.16.0.1", False), ("192.168.1.1", False),
        ("169.254.169.254", False), ("100.64.0.1", False), ("0.0.0.0", False), ("224.0.0.1", False),
        ("255.255.255.255", False), ("240.0.0.1", False), ("192.0.2.1", False), ("::1", False), ("::", False),
        ("fe80::1", False), ("fe80::1%eth0", False), ("fc00::1", False), ("fec0::1", False), ("ff02::1", False),
        ("::ffff:127.0.0.1", False), ("64:ff9b::7f00:1", False), ("2002:7f00:1::", False), ("::127.0.0.1", False),
        ("2001:db8::1", False), ("no address", False),
    ],
)  # fmt: skip
def test_public_addresses(address, public):
    assert is_public(address) is public


def resolve_as(monkeypatch, *answers):
    """Let names mean these addresses, one list per question; returns the questions."""
    questions, left = [], list(answers)

    def addresses(host, _):
        questions.append(host)
        return left.pop(0) if len(left) > 1 else left[0]

    monkeypatch.setattr("trunnion.media_fetch._addresses", addresses)
    return questions


async def test_one_address_that_is_not_public_refuses_the_host(monkeypatch):
    resolve_as(monkeypatch, ["93.184.216.34", "10.0.0.1"])
    error = await refused(MediaFetcher(MediaPolicy(allowed_hosts=["*"])).fetch("http://example.com/a.png", WHERE))
    assert "not public" in error.message
    assert "10.0.0.1" not in error.message


async def test_the_connection_goes_to_the_address_that_was_checked(server, monkeypatch):
    """A name that means something else when asked again does not help: it is asked once."""
    questions = resolve_as(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    connected = []

    async def open_connection(host, port, **_):
        connected.append(host)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    fetcher = MediaFetcher(MediaPolicy(allowed_hosts=[f"example.com:{server.port}"]))
    error = await refused(fetcher.fetch(f"http://example.com:{server.port}/a.png", WHERE))
    assert error.retryable
    assert (questions, connected) == (["example.com"], ["93.184.216.34"])


async def test_the_name_is_what_the_server_is_told(server, monkeypatch):
    opened = asyncio.open_connection
    resolve_as(monkeypatch, ["127.0.0.1"])
    monkeypatch.setattr(asyncio, "open_connection", lambda _, port, **more: opened("127.0.0.1", port, **more))
    fetcher = MediaFetcher(policy(server, allowed_hosts=[f"*.example.com:{server.port}"]))
    assert await fetcher.fetch(f"http://Img.Example.com:{server.port}/a.png#part", WHERE) == PNG
    assert f"Host: img.example.com:{server.port}\r\n" in server.asked[0]


async def test_each_redirect_is_checked_anew(server, monkeypatch):
    fetcher = MediaFetcher(policy(server))
    for number, location in enumerate(("/a.png", f"{server.url}/a.png", "a.png")):
        url = server.add(f"/{number}", answer(b"", f"Location: {location}", status="302 Found"))
        assert await fetcher.fetch(url, WHERE) == PNG
    count = len(server.asked)
    for location in ("http://elsewhere.example/", "file:///etc/passwd", "ftp://127.0.0.1/", f"http://u:p@{server.host}/",
                     f"http://localhost:{server.port}/a.png", "//169.254.169.254/latest"):  # fmt: skip
        url = server.add("/away", answer(b"", f"Location: {location}", status="307 Temporary Redirect"))
        await refused(fetcher.fetch(url, WHERE))
        count += 1
    assert len(server.asked) == count  # nobody was asked besides the first


async def test_a_redirect_to_a_private_address_is_refused(server, monkeypatch):
    """The host is allowed and its name public at first; the redirect's is not."""
    opened = asyncio.open_connection
    resolve_as(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    monkeypatch.setattr(asyncio, "open_connection", lambda _, port, **more: opened("127.0.0.1", port, **more))
    server.add("/to", answer(b"", "Location: /a.png", status="301 Moved"))
    fetcher = MediaFetcher(MediaPolicy(allowed_hosts=[f"example.com:{server.port}"]))
    error = await refused(fetcher.fetch(f"http://example.com:{server.port}/to", WHERE))
    assert "not public" in error.message
    assert len(server.asked) == 1


async def test_redirects_end(server):
    url = server.add("/round", answer(b"", "Location: /round", status="302 Found"))
    error = await refused(MediaFetcher(policy(server, max_redirects=2)).fetch(url, WHERE))
    assert "more than 2 redirects" in error.message
    assert len(server.asked) == 3
    server.asked.clear()
    await refused(MediaFetcher(policy(server, max_redirects=0)).fetch(url, WHERE))
    assert len(server.asked) == 1


def test_https_is_not_left():
    # The check itself, as there is no certificate to be had here.
    async def run():
        from trunnion.media_fetch import _Answer

        fetcher = MediaFetcher(MediaPolicy(allowed_hosts=["example.com"]))
        fetcher._get = lambda *_: _answered(_Answer(location="http://example.com/a.png"))
        error = await refused(fetcher.fetch("https://example.com/", WHERE))
        assert "from https" in error.message

    asyncio.run(run())


async def _answered(value):
    return value


CHUNKED = answer(b"", "Transfer-Encoding: chunked", length=False)


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(answer(b"x" * 101), id="declared"),
        pytest.param(answer(b"x" * 101, length=False), id="until the end"),
        pytest.param(CHUNKED + b"40\r\n" + b"x" * 64 + b"\r\n40\r\n" + b"x" * 64 + b"\r\n0\r\n\r\n", id="chunks"),
        pytest.param(CHUNKED + b"ffffffffff\r\n", id="one chunk"),
        pytest.param(answer(b"", "Content-Length: 99999999999", length=False), id="declared alone"),
    ],
)
async def test_what_is_too_large_is_not_read(server, response):
    error = await refused(MediaFetcher(policy(server, max_bytes=100)).fetch(server.add("/x", response), WHERE))
    assert "more than 100 bytes" in error.message
    assert not error.retryable


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(answer(b"x" * 100), id="declared"),
        pytest.param(answer(b"x" * 100, length=False), id="until the end"),
        pytest.param(CHUNKED + b"40;a=b\r\n" + b"x" * 64 + b"\r\n24\r\n" + b"x" * 36 + b"\r\n0\r\n\r\n", id="chunks"),
        pytest.param(answer(b"", status="103 Early Hints", length=False) + answer(b"x" * 100), id="after hints"),
    ],
)
async def test_what_fits_is_read_whole(server, response):
    body = await MediaFetcher(policy(server, max_bytes=100)).fetch(server.add("/x", response), WHERE)
    assert body == b"x" * 100


@pytest.mark.parametrize(
    ("response", "retryable"),
    [
        (answer(b"", status="404 Not Found"), False),
        (answer(b"", status="403 Forbidden"), False),
        (answer(b"", status="503 Service Unavailable"), True),
        (answer(b"", status="302 Found"), False),
        (answer(b"", "Content-Encoding: gzip"), False),
        (b"", True),
        (b"SSH-2.0-OpenSSH\r\n\r\n", True),
        (b"HTTP/1.1 abc\r\n\r\n", True),
        (b"HTTP/1.1\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", True),
        (CHUNKED + b"-5\r\nabc", True),
        (CHUNKED + b"zz\r\nabc", True),
        (CHUNKED + b"3\r\nabcdef", True),
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, True),
    ],
)
async def test_answers_that_are_none_are_errors_of_the_part(server, response, retryable):
    error = await refused(MediaFetcher(policy(server)).fetch(server.add("/x", response), WHERE))
    assert (error.retryable, error.http_status) == (retryable, 400)


async def test_a_fetch_ends_in_time(server):
    async def drip(writer):
        writer.write(answer(b"", "Content-Length: 1000", length=False))
        for _ in range(1000):
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async def silent(writer):
        await asyncio.sleep(60)

    async def endless_head(writer):
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"a: b\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)

    for script in (drip, silent, endless_head):
        error = await refused(MediaFetcher(policy(server, timeout=0.3)).fetch(server.add("/x", script), WHERE))
        assert "more than 0.3 s" in error.message
        assert error.retryable


async def test_fetches_at_one_time_are_bounded(server):
    gate = asyncio.Event()

    async def held(writer):
        await gate.wait()
        writer.write(answer(PNG))
        await writer.drain()

    url = server.add("/held", held)
    fetcher = MediaFetcher(policy(server, max_concurrent_fetches=2))
    tasks = [asyncio.ensure_future(fetcher.fetch(url, WHERE)) for _ in range(6)]
    while server.now < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    gate.set()
    assert await asyncio.gather(*tasks) == [PNG] * 6
    assert server.most == 2


async def test_names_that_do_not_resolve_hold_nothing_else_up(server, monkeypatch):
    """They wait in threads of the fetcher, and are given up in time."""
    gate = threading.Event()
    monkeypatch.setattr("trunnion.media_fetch._addresses", lambda *_: gate.wait(30) and [])
    fetcher = MediaFetcher(MediaPolicy(allowed_hosts=["*"], timeout=0.2, max_concurrent_fetches=50))
    try:
        fetches = [asyncio.ensure_future(fetcher.fetch("http://slow.example/", WHERE)) for _ in range(50)]
        assert await asyncio.wait_for(asyncio.to_thread(lambda: 7), 10) == 7
        for one in fetches:
            assert (await refused(one)).retryable
    finally:
        gate.set()


async def test_a_server_that_is_not_there(server):
    fetcher = MediaFetcher(MediaPolicy(allowed_hosts=["127.0.0.1:1"], allow_private_addresses=True))
    assert (await refused(fetcher.fetch("http://127.0.0.1:1/", WHERE))).retryable


@pytest.mark.parametrize(
    ("allowed", "url", "taken"),
    [
        ("example.com", "http://example.com/a", True),
        ("example.com", "https://EXAMPLE.com./a", True),
        ("Example.com", "https://example.com:443/a", True),
        ("example.com", "http://example.com:8080/a", False),
        ("example.com", "https://example.com:80/a", False),
        ("example.com", "http://www.example.com/a", False),
        ("example.com", "http://badexample.com/a", False),
        ("example.com:8080", "http://example.com:8080/a", True),
        ("example.com:8080", "http://example.com/a", False),
        ("*.example.com", "http://a.b.example.com/a", True),
        ("*.example.com", "http://example.com/a", False),
        ("*.example.com", "http://badexample.com/a", False),
        ("*", "https://anything.org/a", True),
        ("*", "https://anything.org:8443/a", False),
        ("*:8443", "https://anything.org:8443/a", True),
        ("[::1]:8080", "http://[::1]:8080/a", True),
        ("[::1]", "http://[::1]/a", True),
        ("xn--bcher-kva.example", "http://bücher.example/a", True),
        ("*", "http://example.com\\@evil.org/", False),
        ("example.com", "http://example.com@evil.org/", False),
        ("example.com", "http://evil.org#@example.com/", False),
        ("*", "http://user@example.com/", False),
        ("*", "http://:secret@example.com/", False),
        ("*", "http://example.com/a\r\nHost: evil.org", False),
        ("*", "http://example.com/a b", False),
        ("*", "http://exa\tmple.com/", False),
        ("*", "http://[fe80::1%25eth0]/", False),
        ("*", "http://[::1", False),
        ("*", "http:///a", False),
        ("*", "http://./a", False),
        ("*", "http://exa<mple.com/a", False),
        ("*", "http:example.com", False),
        ("*", "http://example.com:99999/", False),
        ("*", "http://example.com:x/", False),
        ("*", "file:///etc/passwd", False),
        ("*", "file://example.com/etc/passwd", False),
        ("*", "ftp://example.com/a", False),
    ],
)
def test_hosts_and_ports(allowed, url, taken):
    settings = MediaPolicy(allowed_hosts=[allowed])
    if taken:
        assert check_url(settings, url, WHERE).path == "/a"
    else:
        with pytest.raises(InvalidArgument) as caught:
            check_url(settings, url, WHERE)
        assert caught.value.param == WHERE


def test_hosts_may_come_in_one_string():
    assert MediaPolicy(allowed_hosts="a.example, *.B.example:8080").allowed_hosts == ("a.example", "*.b.example:8080")


def test_a_path_is_sent_as_it_may_be():
    target = check_url(MediaPolicy(allowed_hosts=["*"]), "https://example.com?q=ä&b=%20c", WHERE)
    assert (target.path, target.header) == ("/?q=%C3%A4&b=%20c", "example.com")
    assert check_url(MediaPolicy(allowed_hosts=["*:8"]), "http://[2606::1]:8/ö", WHERE)[1:] == ("2606::1", 8, "/%C3%B6")
    assert check_url(MediaPolicy(allowed_hosts=["*:8"]), "http://[2606::1]:8/", WHERE).header == "[2606::1]:8"


@pytest.mark.parametrize(
    "settings",
    [
        {"allowed_hosts": ["http://example.com"]}, {"allowed_hosts": ["example.com/a"]}, {"allowed_hosts": [""]},
        {"allowed_hosts": ["a*.com"]}, {"allowed_hosts": ["example.com:"]}, {"max_bytes": 0}, {"timeout": 0},
        {"max_urls": 0}, {"max_redirects": -1}, {"max_concurrent_fetches": 0}, {"hosts": ["example.com"]},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValidationError):
        MediaPolicy(**settings)
