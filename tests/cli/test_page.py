"""The page in a real browser, from a real `trunnion serve`: what it shows, the playground, and what it never does."""

import json
import os
import signal
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from cli_lines import COMMAND, wait_for_line

import chromium

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium.find() is None, reason=chromium.MISSING),
]
SIM = ("serve", "some-model", "--engine", "sim", "--port", "0", "--adapter", "loud", "--set", "max_model_len=4000")
PICTURES = os.environ.get("TRUNNION_TEST_PICTURES")
"""A folder to keep screenshots in, to be looked at."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    made = chromium.Chromium(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture
def start(cli):
    """Serve with further arguments; return the URL of the page."""
    started = []

    def serve(*arguments, env=None):
        process = cli.start(*SIM, *arguments, env=env)
        said = wait_for_line(process.stderr, "page: ")
        started.append(process)
        return said.rpartition("page: ")[2].split()[0]

    yield serve
    for process in started:
        cli.interrupt(process, signal.SIGINT)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Serve, for all tests that want nothing else, with a fiftieth of a second per token; return the URL."""
    command = [*COMMAND, *SIM, "--set", "tpot=0.02"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        yield wait_for_line(process.stderr, "page: ").rpartition("page: ")[2].split()[0]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


@pytest.fixture
def opened(served, browser):
    """Open the page."""
    page = browser.page()
    page.goto(served)
    page.url = served
    page.wait("document.querySelector('#models td:last-child')?.textContent.length > 0")
    page.tokens = int(page.run("document.querySelector('#models tr').lastChild.textContent").replace(",", ""))
    return page


def send(page, text):
    page.type("#message", text)
    page.click("#send")


def idle(page):
    page.wait("!document.querySelector('#send').disabled")


def answer(page):
    return page.run("[...document.querySelectorAll('.turn.assistant .text')].at(-1)?.textContent ?? ''")


def counted(page, tokens):
    """Wait until the table tells of so many further tokens, as /metrics does."""
    page.wait(f"document.querySelector('#models td:last-child').textContent === '{page.tokens + tokens:,}'")


def picture(page, name):
    if PICTURES:
        page.picture(Path(PICTURES) / f"{name}.png")


def test_it_shows_what_is_served_and_streams_an_answer(opened):
    page = opened
    page.wait("document.querySelector('#state').dataset.state === 'ready'")
    names = page.run("[...document.querySelectorAll('#models td:first-child')].map(cell => cell.textContent)")
    assert names == ["some-model", "loud"]
    assert "sim" in page.text("#version")
    page.type("#max-tokens", "40")
    send(page, "What is the capital of France?")
    page.wait("document.querySelector('.turn.assistant .text')?.textContent.length > 5")
    assert page.run("document.querySelector('#send').disabled && !document.querySelector('#stop').disabled")
    begun = answer(page)
    idle(page)
    assert answer(page).startswith(begun)
    assert len(answer(page)) > len(begun)
    note = page.text(".turn.assistant .quiet")
    assert "first token after" in note
    assert "40 out" in note
    assert "ended by length" in note
    counted(page, 40)
    page.wait("Number(document.querySelector('#spark polyline').getAttribute('points').length) > 0")
    picture(page, "light")
    host = urllib.parse.urlsplit(page.url).netloc
    assert {urllib.parse.urlsplit(url).netloc for url in page.urls if not url.startswith("data:")} == {host}
    assert {"/", "/v1/chat/completions", "/metrics", "/ready"} <= {urllib.parse.urlsplit(url).path for url in page.urls}
    assert page.complaints == []


def test_a_conversation_goes_on_with_what_was_said_and_an_adapter(opened):
    page = opened
    page.run(
        "window.bodies = []; const real = fetch; window.fetch = (a, b) => { bodies.push(b.body); return real(a, b); }"
    )
    page.type("#max-tokens", "3")
    page.choose("#model", "loud")
    page.run("document.querySelector('details').open = true")
    page.type("#system", "Be brief.")
    send(page, "first")
    idle(page)
    assert answer(page).isupper()
    first = answer(page)
    page.type("#message", "second")
    page.press("Enter", 13)
    page.wait("document.querySelectorAll('.turn.assistant .quiet').length === 2")
    last = json.loads(page.run("bodies.filter(Boolean).at(-1)"))
    assert last["model"] == "loud"
    assert last["temperature"] == 0.7
    assert last["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "second"},
    ]
    page.click("#clear")
    assert page.text("#log") == "Ask something."


@pytest.mark.parametrize("way", ["button", "escape"])
def test_stop_ends_the_answer_and_frees_the_engine(opened, way):
    page = opened
    page.type("#max-tokens", "3000")
    send(page, "Tell me all.")
    page.wait("document.querySelector('.turn.assistant .text')?.textContent.length > 5")
    if way == "button":
        page.click("#stop")
    else:
        page.press("Escape", 27)
    idle(page)
    assert "stopped" in page.text(".turn.assistant .quiet")
    assert answer(page)

    def running():
        with urllib.request.urlopen(f"{page.url}metrics") as response:
            text = response.read().decode()
        return float(text.partition('trunnion_engine_running{model="some-model"} ')[2].split()[0])

    for _ in range(200):
        if running() == 0:
            break
    assert running() == 0
    assert page.complaints == []


def test_errors_are_told_and_the_message_is_kept(opened):
    page = opened
    page.type("#max-tokens", "100000")
    send(page, "Hello?")
    idle(page)
    shown = page.text(".turn.error")
    assert "(400)" in shown
    assert "context" in shown
    assert page.run("document.querySelector('#message').value") == "Hello?"
    page.type("#max-tokens", "4")
    page.click("#send")
    page.wait("document.querySelector('.turn.assistant .quiet')")
    picture(page, "error")


def test_a_stream_that_breaks_is_told(start, browser):
    page = browser.page()
    page.goto(start("--set", "fault=die", "--set", "fault_after=3", "--set", "fault_marker=break"))
    page.wait("document.querySelector('#model').value === 'some-model'")
    send(page, "break, please")
    idle(page)
    assert "in mid-stream" in page.text(".turn.error")


def test_with_keys_it_asks_for_one_and_keeps_it_in_the_tab(start, browser):
    url = start("--api-keys-env", "TEST_KEYS", env={"TEST_KEYS": "right"})
    page = browser.page()
    page.goto(url)
    page.wait("document.querySelector('#models-note').textContent.includes('API key')")
    assert page.run("document.querySelector('#key-box').open")
    page.type("#key", "right")
    page.wait("document.querySelector('#model').value === 'some-model'")
    page.type("#max-tokens", "3")
    send(page, "Hello")
    page.wait("document.querySelector('.turn.assistant .quiet')")
    assert page.run("[localStorage.length, document.cookie, sessionStorage.length]") == [0, "", 1]
    page.type("#key", "wrong")
    send(page, "Hello")
    idle(page)
    assert "(401)" in page.text(".turn.error")
    assert page.run("document.activeElement.id") == "key"


@pytest.mark.parametrize(("width", "scheme"), [(400, "light"), (400, "dark"), (1200, "dark")])
def test_it_fits_narrow_screens_and_dark_ones(opened, width, scheme):
    page = opened
    page.show(width=width, scheme=scheme)
    page.type("#max-tokens", "30")
    send(page, "What is the capital of France, and of every other country there is?")
    idle(page)
    counted(page, 30)
    assert page.run("document.documentElement.scrollWidth") <= width
    back = page.run("getComputedStyle(document.body).backgroundColor")
    assert (back == "rgb(18, 20, 23)") is (scheme == "dark")
    picture(page, f"{scheme}-{width}")


def test_the_keyboard_reaches_everything(opened):
    page = opened
    reached = []
    page.run("document.activeElement.blur()")
    for _ in range(20):
        page.press("Tab", 9)
        reached.append(page.run("document.activeElement.id || document.activeElement.tagName"))
    order = ["log", "model", "temperature", "max-tokens", "message", "send", "clear"]
    assert [name for name in reached if name in order][: len(order)] == order
