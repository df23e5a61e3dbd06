"""GET / as bytes: who gets the page, under what policy, and that it is sound in itself."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib.resources import files

import httpx
import pytest
from http_fakes import FakeModel

from trunnion_http import HTTPSettings, create_app

HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def web(**settings):
    transport = httpx.ASGITransport(create_app([FakeModel("m")], HTTPSettings(**settings)))
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def page():
    async with web() as client:
        return await client.get("/", headers=HTML)


def policy_of(answer):
    parts = [part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")]
    return {name: rest[0] if rest else "" for name, *rest in parts}


async def test_browsers_get_the_page_and_clients_of_the_api_its_error(page):
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["vary"] == "accept"
    async with web() as client:
        for accept in ("*/*", "application/json"):
            answer = await client.get("/", headers={"accept": accept})
            assert answer.status_code == 404
            assert answer.json()["error"]["code"] == "unknown_url"
        assert (await client.post("/", headers=HTML)).status_code == 404
        assert (await client.get("/elsewhere", headers=HTML)).status_code == 404
        head = await client.head("/", headers=HTML)
    assert head.status_code == 200
    assert int(head.headers["content-length"]) == len(page.content)


async def test_it_can_be_off():
    async with web(page=False) as client:
        assert (await client.get("/", headers=HTML)).status_code == 404


async def test_it_needs_no_key_and_what_it_asks_for_does(monkeypatch):
    monkeypatch.setenv("TEST_KEYS", "right")
    async with web(api_keys_env="TEST_KEYS") as client:
        assert (await client.get("/", headers=HTML)).status_code == 200
        assert (await client.get("/")).status_code == 401
        assert (await client.get("/v1/models")).status_code == 401


@pytest.mark.parametrize("path", ["/llm", "/llm/"])
async def test_under_a_mount(path):
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"accept", b"text/html")]
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "/llm", "headers": headers}
    await create_app([FakeModel("m")])(scope, None, send)
    assert sent[0]["status"] == 200


async def test_the_policy_allows_what_is_inside_and_nothing_else(page):
    policy = policy_of(page)
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for tag, directive in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


async def test_nothing_comes_from_elsewhere(page):
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s'\"<>]*", page.text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|localStorage| style=| on\w+=", page.text)


class Reader(HTMLParser):
    """Collect ids, what is labelled, and what asks to be."""

    def __init__(self):
        super().__init__()
        self.ids, self.labelled, self.fields, self.open = [], set(), set(), 0

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.ids += filter(None, [told.get("id")])
        self.open += tag == "label"
        if tag == "label" and "for" in told:
            self.labelled.add(told["for"])
        if tag in ("input", "select", "textarea"):
            self.fields.add(told["id"])
            if self.open:
                self.labelled.add(told["id"])

    def handle_endtag(self, tag):
        self.open -= tag == "label"


async def test_every_field_has_a_label_and_the_script_finds_what_it_looks_for(page):
    reader = Reader()
    reader.feed(page.text)
    assert len(reader.ids) == len(set(reader.ids))
    assert reader.fields
    assert reader.fields <= reader.labelled
    assert set(re.findall(r'byId\("([\w-]+)"\)', page.text)) <= set(reader.ids)
    referred = re.findall(r'aria-(?:labelledby|describedby)="([\w-]+)"', page.text)
    assert set(referred) <= set(reader.ids)


def test_its_files_are_small():
    for file in files("trunnion_http.page").iterdir():
        if file.is_file():
            assert len(file.read_text(encoding="utf-8").splitlines()) < 250, file.name
