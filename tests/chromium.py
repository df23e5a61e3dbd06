"""Drive a headless Chromium over its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/)."""

import base64
import json
import os
import queue
import re
import shutil
import subprocess
import threading
import time

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
MISSING = "no Chromium here: apt-get install chromium"
LIMIT = 20.0


def find():
    """Return the program; None where there is none. CHROMIUM names one."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """One browser process; each page has a profile of its own."""

    def __init__(self, folder):
        flags = [
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
            "--remote-debugging-port=0", f"--user-data-dir={folder}",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [find(), *flags, "about:blank"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        url = next(found[1] for line in self.process.stderr if (found := re.search(r"listening on (ws://\S+)", line)))
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.socket = connect(url, max_size=None, proxy=None)
        self.answers, self.pages, self.number = {}, {}, 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for text in self.socket:
            message = json.loads(text)
            if "id" in message:
                self.answers[message["id"]].put(message)
            elif page := self.pages.get(message.get("sessionId")):
                page.events.append((message["method"], message["params"]))

    def send(self, method, session=None, **params):
        self.number += 1
        number, answer = self.number, queue.Queue()
        self.answers[number] = answer
        extra = {"sessionId": session} if session else {}
        self.socket.send(json.dumps({"id": number, "method": method, "params": params, **extra}))
        message = answer.get(timeout=LIMIT)
        del self.answers[number]
        assert "error" not in message, (method, message)
        return message["result"]

    def page(self, **media):
        """Open an empty page with cookies and storage of its own."""
        context = self.send("Target.createBrowserContext")["browserContextId"]
        target = self.send("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self.pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            page.send(f"{domain}.enable")
        page.show(**media)
        return page

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait(10)


class Page:
    """One tab. ``events`` is what it told, as (method, parameters)."""

    def __init__(self, browser, session):
        self.browser = browser
        self.session = session
        self.events = []

    def send(self, method, **params):
        return self.browser.send(method, self.session, **params)

    def show(self, *, width=1200, height=900, scheme="light"):
        mobile = width < 500
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def goto(self, url):
        result = self.send("Page.navigate", url=url)
        assert "errorText" not in result, result
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script):
        """Return what a JavaScript expression gives."""
        result = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script, seconds=LIMIT):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Boolean({script})"):
            assert time.monotonic() < end, f"never true: {script}\n{self.text('body')}"
            time.sleep(0.02)

    def text(self, selector):
        return self.run(f"document.querySelector({json.dumps(selector)}).innerText")

    def click(self, selector):
        """Press the mouse in the middle of an element."""
        script = f"""(() => {{ const e = document.querySelector({json.dumps(selector)});
            e.scrollIntoView({{block: "center"}}); const r = e.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2]; }})()"""
        x, y = self.run(script)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector, text):
        """Replace what a field holds, by the keyboard's way."""
        self.run(f"(e => {{ e.focus(); e.select?.(); }})(document.querySelector({json.dumps(selector)}))")
        self.send("Input.insertText", text=text)

    def press(self, key, code=0):
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def choose(self, selector, value):
        self.run(
            f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('change', {{bubbles: true}})); }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )

    def picture(self, path):
        """Save the whole page as a PNG."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    @property
    def urls(self):
        """Return the addresses of every request."""
        return [params["request"]["url"] for method, params in self.events if method == "Network.requestWillBeSent"]

    @property
    def complaints(self):
        """Return errors and warnings of the console, exceptions, and what the browser's own checks found."""
        found = []
        for method, params in list(self.events):
            if method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(params["entry"]["text"])
            elif method == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"])
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(params["args"])
            elif method == "Audits.issueAdded":
                found.append(params["issue"])
        return found
