"""Chromium without a window, driven through WebDriver's HTTP interface by its own chromedriver."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # WebDriver's key for the identifier of an element
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]


def missing() -> str:
    """What is missing for a browser, or an empty string."""
    return ", ".join(name for name in ("chromium", "chromedriver") if not shutil.which(name))


class Browser:
    """A session of WebDriver."""

    def __init__(self, address: str, arguments: list[str]) -> None:
        options = {"args": arguments, "binary": shutil.which("chromium")}
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._session = f"{address}/session"
        found = self.command("", capabilities={"alwaysMatch": capabilities})
        self._session += f"/{found['sessionId']}"

    def command(self, path: str, **arguments: Any) -> Any:
        """POST a command and return its value."""
        answer = requests.post(f"{self._session}{path}", json=arguments, timeout=60)
        value = answer.json()["value"]
        assert answer.ok, value
        return value

    def script(self, text: str) -> Any:
        """The value that JavaScript returns."""
        return self.command("/execute/sync", script=text, args=[])

    def type_into(self, selector: str, text: str) -> None:
        """Type into an element; the path of a file, if it is an input for files."""
        found = self.command("/element", using="css selector", value=selector)
        self.command(f"/element/{found[ELEMENT]}/value", text=text)

    def wait(self, script: str, seconds: float = 20) -> Any:
        """The value of a script once it is true."""
        end = time.monotonic() + seconds
        while not (value := self.script(script)):
            assert time.monotonic() < end, f"{script}; the page shows: {self.script('return document.body.innerText')}"
            time.sleep(0.05)
        return value

    def quit(self) -> None:
        requests.delete(self._session, timeout=60)


@contextmanager
def browser(profile: Path, *arguments: str) -> Iterator[Browser]:
    """Start a browser with an empty profile; it ends with the block."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                requests.get(f"{address}/status", timeout=5)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        opened = Browser(address, [*ARGUMENTS, f"--user-data-dir={profile}", *arguments])
        try:
            yield opened
        finally:
            opened.quit()
    finally:
        driver.terminate()
        driver.wait()
