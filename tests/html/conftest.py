"""A real headless Chromium, driven through the DevTools protocol on two pipes: no driver, no port, no library."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

FIND = Path(__file__).parents[2] / "scripts/find-chromium"
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Chromium:
    """One browser process. Frames are JSON that ends with NUL: read by it on descriptor 3, written on 4."""

    def __init__(self, program: str, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        # sh can put the pipes at 3 and 4, whatever numbers they have here.
        moved = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self.process = subprocess.Popen(
            ["/bin/bash", "-c", moved, "sh", program, *ARGUMENTS, f"--user-data-dir={profile}", "about:blank"],
            # Or it puts a folder for crash reports beside the user's own profile.
            env=os.environ | {"XDG_CONFIG_HOME": str(profile)},
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._numbers = itertools.count(1)
        self._buffer = b""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, /, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result; events that come meanwhile are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _receive(self, deadline: float, waiting_for: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"Chromium did not answer {waiting_for}"
            data = os.read(self._in, 1 << 20)
            assert data, f"Chromium ended during {waiting_for}"
            self._buffer += data
        frame, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(frame)
        return answer

    def close(self) -> None:
        """End the process, politely at first."""
        os.write(self._out, b'{"id":0,"method":"Browser.close"}\0')
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        os.close(self._in)
        os.close(self._out)


class Page:
    """One tab with one of our pages."""

    def __init__(self, chromium: Chromium, *, width: int, height: int, dark: bool) -> None:
        self._chromium = chromium
        self._context = chromium.call("Target.createBrowserContext")["browserContextId"]
        target = chromium.call("Target.createTarget", url="about:blank", browserContextId=self._context)["targetId"]
        self._session = chromium.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}  # nothing is seen on its way
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])

    def close(self) -> None:
        """End the tab, its processes and what it stored."""
        self._chromium.call("Target.disposeBrowserContext", browserContextId=self._context)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a method of the protocol for this tab."""
        return self._chromium.call(method, self._session, **params)

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file and wait until its script has run."""
        address = path.as_uri() + (f"#{fragment}" if fragment else "")
        error = self.call("Page.navigate", url=address).get("errorText")
        assert not error, error
        self.until(f"document.readyState === 'complete' && location.href === {json.dumps(address)}")

    def reload(self) -> None:
        """Load the page again, and wait for the new one: the old one answers for a while."""
        self.run("window.isTheOldOne = true")
        self.call("Page.reload")
        self.until("!window.isTheOldOne && document.readyState === 'complete'")

    def reload_until(self, condition: str) -> None:
        """Load the page again until a condition holds: what a page stores reaches the next one only after a moment."""
        deadline = time.monotonic() + PATIENCE
        self.reload()
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"true after no reload: {condition}"
            self.reload()

    def until(self, condition: str) -> None:
        """Wait for a condition in the page."""
        deadline = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"never came true: {condition}"
            time.sleep(0.01)

    def run(self, expression: str) -> Any:
        """Evaluate an expression; the page's own policy forbids eval, DevTools may."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """The visible text of the first element."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def count(self, selector: str) -> int:
        """How many elements there are."""
        return int(self.run(f"document.querySelectorAll({json.dumps(selector)}).length"))

    def press(self, key: str, *, text: str = "", modifiers: int = 0) -> None:
        """Press and release a key, as the keyboard does. Modifiers: 1 Alt, 2 Ctrl, 8 Shift."""
        code = {"Enter": 13, "Tab": 9, "Escape": 27}.get(key, 0)
        given = {"key": key, "code": key, "modifiers": modifiers, "windowsVirtualKeyCode": code}
        typed = text or {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyDown" if typed else "rawKeyDown", text=typed, **given)
        self.call("Input.dispatchKeyEvent", type="keyUp", **given)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def _middle(self, selector: str) -> dict[str, float]:
        quoted = json.dumps(selector)
        self.run(f"document.querySelector({quoted}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        x, y = self.run(
            f"(b => [b.left + b.width / 2, b.top + b.height / 2])"
            f"(document.querySelector({quoted}).getBoundingClientRect())"
        )
        return {"x": x, "y": y}

    def point(self, selector: str) -> None:
        """Move the mouse over an element."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", **self._middle(selector))

    def click(self, selector: str, *, modifiers: int = 0) -> None:
        """Click the middle of an element."""
        at = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, modifiers=modifiers, **at)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen, or the whole page, as PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self) -> bytes:
        """The page as printed."""
        return base64.b64decode(self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=False)["data"])

    def _events(self, *methods: str) -> list[dict[str, Any]]:
        return [
            event["params"]
            for event in self._chromium.events
            if event.get("sessionId") == self._session and event["method"] in methods
        ]

    def complaints(self) -> list[dict[str, Any]]:
        """Everything on the console: errors, warnings, violations of the page's policy."""
        self.run("0")  # what happened before has been told by now
        return self._events("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")

    def requests(self) -> list[str]:
        """The address of everything that was loaded."""
        self.run("0")
        return [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """The browser of the session; TDX_CPUID_CHROMIUM names one that is not on the path."""
    found = subprocess.run([FIND], capture_output=True, text=True, check=False).stdout.strip()
    assert found, "the HTML report is tested in Chromium, and there is none: apt-get install chromium"
    browser = Chromium(found, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def new_page(chromium: Chromium) -> Iterator[Callable[..., Page]]:
    """Open a tab: ``new_page(width=.., height=.., dark=..)``. It ends with the test."""
    pages = []

    def new(*, width: int = 1400, height: int = 900, dark: bool = False) -> Page:
        pages.append(Page(chromium, width=width, height=height, dark=dark))
        return pages[-1]

    yield new
    for page in pages:
        page.close()
