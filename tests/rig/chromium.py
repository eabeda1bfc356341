"""A headless Chromium, driven over a pipe by the DevTools protocol: no driver program, no port."""
import base64
import itertools
import json
import os
import queue
import shutil
import subprocess
import threading

from .clickhouse import die_with_parent
from .wait import DEADLINE, wait_until

# Debian's chromium-headless-shell is half the size of chromium, and all that is needed here.
NAMES = ("chromium-headless-shell", "chromium", "google-chrome")


class Chromium:
    """One browser; page() opens a page of its own context, so that pages share nothing."""

    def __init__(self, profile):
        program = next(filter(None, map(shutil.which, NAMES)), None)
        assert program, f"none of {', '.join(NAMES)} is installed (tests/deps.sh)"
        to_child, self.to_browser = os.pipe()
        self.from_browser, from_child = os.pipe()

        def before():
            # It reads its commands from descriptor 3 and answers on 4. Copies first: one may be 3 or 4 already.
            die_with_parent()
            a, b = os.dup(to_child), os.dup(from_child)
            high = [os.dup2(fd, n) for fd, n in ((a, 50), (b, 51))]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.proc = subprocess.Popen(
            [program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
             "--force-device-scale-factor=1", "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            close_fds=False, preexec_fn=before)
        os.close(to_child)
        os.close(from_child)
        self.ids = itertools.count(1)
        self.answers = {}
        self.pages = {}
        self.lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        rest = b""
        with os.fdopen(self.from_browser, "rb", buffering=0) as f:
            while data := f.read(1 << 16):
                *messages, rest = (rest + data).split(b"\0")
                for message in map(json.loads, messages):
                    if "id" in message:
                        self.answers[message["id"]].put(message)
                    elif (page := self.pages.get(message.get("sessionId"))) is not None:
                        page.on_event(message["method"], message["params"])
        for waiting in list(self.answers.values()):
            waiting.put({"error": "the browser has ended"})

    def call(self, method, session=None, **params):
        number, waiting = next(self.ids), queue.Queue()
        self.answers[number] = waiting
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        with self.lock:
            os.write(self.to_browser, json.dumps(message).encode() + b"\0")
        answer = waiting.get(timeout=DEADLINE * 3)
        del self.answers[number]
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def page(self, width=1280, height=900, dark=False):
        return Page(self, width, height, dark)

    def close(self):
        os.close(self.to_browser)  # which ends it
        try:
            self.proc.wait(10)
        except subprocess.TimeoutExpired:
            self.proc.kill()
            self.proc.wait()


class Page:
    """Remembers every request, console line and exception."""

    def __init__(self, browser, width, height, dark):
        self.browser = browser
        self.requests, self.console, self.exceptions = [], [], []
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=self.context)["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.pages[self.session] = self
        for domain in ("Page", "Network", "Runtime", "Log", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setScrollbarsHidden", hidden=True)  # or pictures lack the strip they take
        self.look(width, height, dark)

    def on_event(self, method, params):
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded":
            self.console.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif method == "Runtime.consoleAPICalled":
            self.console.append(f"{params['type']}: {[a.get('value') for a in params['args']]}")
        elif method == "Runtime.exceptionThrown":
            self.exceptions.append(json.dumps(params["exceptionDetails"])[:2000])

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def look(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="", features=[scheme])

    def open(self, url):
        self.call("Page.navigate", url=url)
        return self

    def js(self, expression):
        """The value of an expression, which may be a promise."""
        got = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in got, f"{expression}: {got['exceptionDetails']}"
        return got["result"].get("value")

    def wait(self, expression, deadline=DEADLINE * 3):
        """Until the expression is true."""
        try:
            wait_until(lambda: self.js(expression), deadline)
        except AssertionError as e:
            raise AssertionError(f"{expression}: {e}; {self.console} {self.exceptions} {self.js('document.body?.innerText')}")

    def text(self, selector):
        return self.js(f"document.querySelector({json.dumps(selector)})?.textContent")

    def key(self, key, code=None):
        codes = {"Enter": 13, "Tab": 9, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        common = {"key": key, "code": code or key, "windowsVirtualKeyCode": codes[key]}
        self.call("Input.dispatchKeyEvent", type="keyDown", **common, **({"text": "\r"} if key == "Enter" else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def screenshot(self, path, full=True):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=full)["data"]
        with open(path, "wb") as f:
            f.write(base64.b64decode(data))

    def tree(self):
        """The accessibility tree: (role, name) of each node that a screen reader meets."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in nodes if not n["ignored"]]

    def close(self):
        self.browser.pages.pop(self.session, None)
        self.browser.call("Target.disposeBrowserContext", browserContextId=self.context)
