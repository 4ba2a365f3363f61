"""A real browser for the tests: headless Chromium, driven over its debugging port."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


def find_chromium():
    return next((path for path in map(shutil.which, NAMES) if path), None)


@contextmanager
def open_browser(folder: Path, *arguments: str):
    """Yield a page in a browser with its profile in ``folder``."""
    command = [find_chromium(), *ARGUMENTS, *arguments]
    command += [f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(folder / "DevToolsActivePort")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=60) as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None, open_timeout=60) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _port(path: Path):
    for _ in range(600):
        if path.is_file() and path.read_text().strip():
            return int(path.read_text().splitlines()[0])
        time.sleep(0.1)
    raise TimeoutError("chromium did not start within a minute")


class Page:
    """A page of the browser: navigation, contents, and input."""

    def __init__(self, socket):
        self._socket = socket
        self._number = 0
        self.complaints = []
        self.requests = []
        self.contexts = {}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=120))
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]
            self._note(message)

    def _note(self, message):
        name, content = message.get("method"), message.get("params", {})
        if name == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(content["exceptionDetails"])[:600])
        elif name == "Runtime.consoleAPICalled" and content["type"] in ("error", "warning"):
            self.complaints.append(json.dumps(content["args"])[:600])
        elif name == "Log.entryAdded" and content["entry"]["level"] in ("error", "warning"):
            self.complaints.append(content["entry"]["text"])
        elif name == "Runtime.executionContextCreated":
            self.contexts[content["context"]["id"]] = content["context"]
        elif name == "Runtime.executionContextDestroyed":
            self.contexts.pop(content["executionContextId"], None)
        elif name == "Runtime.executionContextsCleared":
            self.contexts.clear()
        elif name == "Network.requestWillBeSent":
            self.requests.append(content["request"]["url"])

    def open(self, address):
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=address)
        self.wait("document.body && document.body.dataset.ready === 'yes'")

    def evaluate(self, expression, **more):
        result = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, **more
        )
        if "exceptionDetails" in result:
            raise RuntimeError(json.dumps(result["exceptionDetails"])[:800])
        return result["result"].get("value")

    def evaluate_in_frame(self, expression):
        """Evaluate in the frame without an origin; None if there is none yet."""
        for number, context in reversed(list(self.contexts.items())):
            if context["origin"] in ("", "null", "://") and context["auxData"]["isDefault"]:
                with contextlib.suppress(RuntimeError):  # the frame is being replaced
                    return self.evaluate(expression, contextId=number)
        return None

    def wait_in_frame(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not (found := self.evaluate_in_frame(expression)):
            self.evaluate("0")  # processes pending events
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds} s in the frame for: {expression}")
            time.sleep(0.1)
        return found

    def wait(self, expression, seconds=60):
        end = time.monotonic() + seconds
        while not (found := self.evaluate(expression)):
            if time.monotonic() > end:
                raise TimeoutError(f"waited {seconds} s for: {expression}")
            time.sleep(0.05)
        return found

    def press(self, key, **more):
        text = {"text": key} if len(key) == 1 else {}
        codes = {"Enter": 13, "Escape": 27, "ArrowDown": 40, "ArrowUp": 38}
        code = {"windowsVirtualKeyCode": codes[key]} if key in codes else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **code, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **code, **more)

    def write(self, text):
        self.call("Input.insertText", text=text)

    def click(self, selector):
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def text(self, selector):
        return self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? null")

    def resize(self, width, height):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, scheme):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def screenshot(self, path: Path):
        data = self.call("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))
