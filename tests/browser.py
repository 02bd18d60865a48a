"""Drive a headless Chromium through chromedriver's HTTP interface, without further packages."""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
CONTROL = "\ue009"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for a reference


def lacking() -> str:
    """Return why no browser can be started, or an empty text if one can."""
    if not any(map(shutil.which, BROWSERS)):
        return "no Chromium or Chrome on PATH"
    return "" if shutil.which("chromedriver") else "no chromedriver on PATH (chromium-driver)"


class Browser:
    """One window; `javascript` runs in its page."""

    def __init__(self, address: str):
        self.address = address

    def call(self, method: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        self.call("POST", "/url", {"url": page.as_uri()})

    def javascript(self, script: str, *arguments):
        return self.call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def javascript_later(self, script: str, *arguments):
        """Run a script whose last argument is a callback, and return what it passes to it."""
        self.call("POST", "/timeouts", {"script": 120_000})
        return self.call("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def devtools(self, command: str, **parameters):
        return self.call("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def show(self, width: int, height: int = 900, scheme: str = "light") -> None:
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.devtools("Emulation.setEmulatedMedia", features=[feature])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)

    def pasted(self) -> str:
        """Return what Ctrl+V puts into an empty text area."""
        area = self.javascript(
            "const area = document.createElement('textarea'); document.body.append(area);"
            "return area"
        )
        self.call("POST", f"/element/{area[ELEMENT]}/value", {"text": CONTROL + "v"})
        return self.javascript(
            "const text = arguments[0].value; arguments[0].remove(); return text", area
        )

    def click(self, selector: str) -> None:
        """Click as a user does, in the middle of the window, where no sticky heading covers it."""
        script = "document.querySelector(arguments[0]).scrollIntoView({block: 'center'})"
        self.javascript(script, selector)
        element = self.call("POST", "/element", {"using": "css selector", "value": selector})
        self.call("POST", f"/element/{element[ELEMENT]}/click", {})

    def complaints(self) -> list[str]:
        """Return the errors and warnings of the console since the last call."""
        return [line["message"] for line in self.call("POST", "/se/log", {"type": "browser"})]

    def picture(self) -> bytes:
        return base64.b64decode(self.call("GET", "/screenshot"))


@contextlib.contextmanager
def started():
    """Start a browser with a temporary profile, and close it afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            browser = _session(f"http://127.0.0.1:{port}", profile)
            try:
                yield browser
            finally:
                browser.call("DELETE", "")
        finally:
            driver.terminate()
            driver.wait(30)


def _session(address: str, profile: str) -> Browser:
    browser = Browser(address)
    for _ in range(100):
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            browser.call("GET", "/status")
            break
        time.sleep(0.1)
    binary = next(filter(None, map(shutil.which, BROWSERS)))
    wanted = {
        "goog:loggingPrefs": {"browser": "ALL"},
        "goog:chromeOptions": {"binary": binary, "args": [*FLAGS, f"--user-data-dir={profile}"]},
    }
    session = browser.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
    return Browser(f"{address}/session/{session['sessionId']}")


def main() -> None:
    """Take the picture of the README: python -m tests.browser results/index.html OUT.png."""
    page, out = map(Path, sys.argv[1:])
    with started() as browser:
        browser.show(1240, 860)
        browser.open(page.absolute())
        browser.javascript("document.getElementById('chen2019').scrollIntoView()")
        out.write_bytes(browser.picture())


if __name__ == "__main__":
    main()
