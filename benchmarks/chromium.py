# SPDX-License-Identifier: Apache-2.0
"""A real headless Chromium, driven over the DevTools protocol. Made for tests and for pictures of the page."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

ROOT = Path(__file__).resolve().parents[1]
UNPACKED = ROOT / ".venv" / "chromium"  # where `make` unpacks Debian's package
PROGRAM = UNPACKED / "usr" / "lib" / "chromium" / "chromium-headless-shell"
INSTALLED = ("chromium-headless-shell", "chromium", "google-chrome")
PATIENCE_S = 60.0  # a bound for machines under load, never a measure
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-quic", "--hide-scrollbars", "--mute-audio", "--force-color-profile=srgb",
)  # fmt: skip


def program() -> tuple[str, dict[str, str]]:
    """The browser and the environment it needs: one that is installed, else the one that `make` unpacked."""
    for name in INSTALLED:
        if found := shutil.which(name):
            return found, dict(os.environ)
    assert PROGRAM.exists(), "no Chromium: `make test` unpacks one into .venv"
    folders = [
        str(folder)
        for folder in (UNPACKED / "usr" / "lib").glob("*-linux-gnu*/")
        for folder in (folder, *folder.glob("*/"))
    ]
    return str(PROGRAM), dict(os.environ, LD_LIBRARY_PATH=os.pathsep.join(folders))


class Browser:
    """One process with a fresh profile. Calls wait for their answers; the socket lives in a thread."""

    def __init__(self) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        command, environment = program()
        self._process = subprocess.Popen(
            [command, *FLAGS, f"--user-data-dir={self._profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.requests: list[str] = []  # every address that was asked for
        self.complaints: list[str] = []  # what pages said on their console, and what broke in them
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._do(self._connect())

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _connect(self) -> None:
        written = Path(self._profile) / "DevToolsActivePort"
        end_s = time.monotonic() + PATIENCE_S
        while not (written.exists() and written.read_text().count("\n")):
            assert self._process.poll() is None, "Chromium does not start"
            assert time.monotonic() < end_s, "Chromium did not open its port"
            await asyncio.sleep(0.02)
        port, path = written.read_text().split()
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(f"http://127.0.0.1:{port}{path}", max_msg_size=0)
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            reply = json.loads(message.data)
            waiting = self._waiting.pop(reply.get("id", 0), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)
            elif "method" in reply:
                self._note(reply["method"], reply["params"])

    def _note(self, method: str, event: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            self.complaints.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Any:
        """One command of the protocol and its result."""
        return self._do(self._call(method, session, parameters))

    async def _call(self, method: str, session: str | None, parameters: dict[str, Any]) -> Any:
        number = next(self._numbers)
        answer = self._waiting[number] = self._loop.create_future()
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        reply = await answer
        assert "error" not in reply, f"{method}: {reply}"
        return reply["result"]

    def open(
        self, url: str, width: int = 1280, height: int = 900, *, phone: bool = False, theme: str = ""
    ) -> Page:
        """A tab with its own cookies and storage, its clock in UTC. theme: light or dark; empty for the browser's own."""
        self.requests.clear()
        self.complaints.clear()
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, context)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.resize(width, height, phone=phone)
        page.call("Emulation.setTimezoneOverride", timezoneId="UTC")
        if theme:
            page.call(
                "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}]
            )
        page.call("Page.navigate", url=url)
        return page

    def close(self) -> None:
        """End the process and everything of it."""
        self._do(self._leave())
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        shutil.rmtree(self._profile, ignore_errors=True)

    async def _leave(self) -> None:
        await self._socket.close()
        await asyncio.gather(self._reader, return_exceptions=True)
        await self._session.close()


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self.browser, self._session, self._context = browser, session, context

    def call(self, method: str, **parameters: Any) -> Any:
        return self.browser.call(method, self._session, **parameters)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height,
            deviceScaleFactor=2 if phone else 1, mobile=phone,
        )  # fmt: skip

    def look(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, f"{expression}: {reply['exceptionDetails']}"
        return reply["result"].get("value")

    def wait(self, expression: str, is_right: Callable[[Any], Any] = bool) -> Any:
        """The value of an expression once it is right; fails with what it was instead."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            found = self.look(expression)
            if is_right(found):
                return found
            assert time.monotonic() < end_s, f"{expression} stays {found!r}; {self.browser.complaints}"
            time.sleep(0.02)

    def text(self, selector: str) -> str:
        return str(self.look(f"document.querySelector({json.dumps(selector)}).innerText"))

    def wait_text(self, selector: str, part: str) -> str:
        """The text of an element once it contains `part`."""
        shown = f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"
        return str(self.wait(shown, lambda text: part in text))

    def click(self, selector: str) -> None:
        """A real press in the middle of an element that can be seen there."""
        script = (
            "(selector) => { const e = document.querySelector(selector); e.scrollIntoView({block: 'center'});"
            " const r = e.getBoundingClientRect(); const x = r.x + r.width / 2, y = r.y + r.height / 2;"
            " return [x, y, e.contains(document.elementFromPoint(x, y))]; }"
        )
        where = self.look(f"({script})({json.dumps(selector)})")
        assert where[2], f"{selector} cannot be pressed: something else lies over it"
        for kind in ("mousePressed", "mouseReleased"):
            self.call(
                "Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], button="left", clickCount=1
            )

    def type(self, selector: str, text: str) -> None:
        self.look(f"document.querySelector({json.dumps(selector)}).focus()")
        self.call("Input.insertText", text=text)

    def png(self, *, whole: bool = False) -> bytes:
        """Return a PNG of what can be seen, or of the whole page."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        return base64.b64decode(data)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of what can be seen, or of the whole page."""
        path.write_bytes(self.png(whole=whole))

    def close(self) -> None:
        self.browser.call("Target.disposeBrowserContext", browserContextId=self._context)


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser for as long as it is needed."""
    found = Browser()
    try:
        yield found
    finally:
        found.close()
