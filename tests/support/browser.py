"""Chromium, and a viewer to look at with it: one browser for a session of tests, one server for each run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
CHROMEDRIVER = os.environ.get("CHROMEDRIVER") or shutil.which("chromedriver") or ""
WHY_NONE = (
    "" if CHROMIUM and CHROMEDRIVER else "no chromium and chromedriver (scripts/chromium; or CHROMIUM, CHROMEDRIVER)"
)
_QUIET = (
    *("--headless=new", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-gpu"),
    *("--disable-quic", "--no-first-run", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    "--force-device-scale-factor=1",
)


@contextmanager
def chromium(folder: Path, *, width: int = 1300, height: int = 900) -> Iterator[Any]:
    """A browser with a profile of its own in `folder`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    no_sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    for word in (*_QUIET, f"--user-data-dir={folder}", f"--window-size={width},{height}", *no_sandbox):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()


@dataclass
class Viewer:
    """A viewer that listens; `process` is its own, None where it is a thread of the test."""

    process: subprocess.Popen[str] | None
    link: str
    port: int

    @property
    def token(self) -> str:
        return self.link.partition("#t=")[2]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """As a crash does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)


@contextmanager
def viewer(words: Sequence[str | Path], *, port: int = 0, cwd: Path | None = None) -> Iterator[Viewer]:
    """`cryopick view` with these words, until the block ends."""
    command = [sys.executable, "-m", "cryopick", "view", *map(str, words), "--port", str(port), "--no-open", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd)
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first, f"the viewer ended with {process.wait(10)}"
        told = json.loads(first)
        yield Viewer(process, told["link"], told["port"])
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        process.stdout and process.stdout.close()


@contextmanager
def serving(session: Any) -> Iterator[Viewer]:
    """The viewer of a session in a thread, which costs no start of Python."""
    from cryopick.viewer.server import create_app

    with serving_app(create_app(session, token="token-of-the-test")) as one:
        yield one


@contextmanager
def serving_app(app: Any) -> Iterator[Viewer]:
    """An application whose token is `token-of-the-test` in a thread."""
    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, log_level="warning", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        port = listener.getsockname()[1]
        yield Viewer(None, f"http://127.0.0.1:{port}/#t=token-of-the-test", port)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def wait_for(driver: Any, script: str, *, seconds: float = 30.0) -> Any:
    """What an expression in the page comes to as soon as it is true."""
    end = time.monotonic() + seconds
    while True:
        value = driver.execute_script(f"return {script}")
        if value:
            return value
        if time.monotonic() > end:
            state = driver.execute_script("return {...document.documentElement.dataset}")
            banner = driver.execute_script("return document.getElementById('banner').textContent")
            raise AssertionError(f"not within {seconds:g} s: {script}; page: {state}; banner: {banner!r}")
        time.sleep(0.03)


def open_page(driver: Any, one: Viewer) -> None:
    """The viewer's page, with its first micrograph sharp."""
    driver.get("about:blank")  # a link that differs in its fragment alone would not be loaded again
    driver.get(one.link)
    wait_for(driver, "document.documentElement.dataset.state === 'sharp'")
    wait_for(driver, "document.documentElement.dataset.exact !== undefined")
    wait_until_still(driver)


UNTIL_STILL = """
const done = arguments[arguments.length - 1];
const place = () => { const box = document.getElementById('over').getBoundingClientRect();
  return [...cryopick.view.toScreen(0, 0), ...cryopick.view.toScreen(100, 100), box.left, box.top].join(); };
let last = '', same = 0;
const look = () => {
  same = place() === last ? same + 1 : 0;
  last = place();
  if (same >= 10) done(); else requestAnimationFrame(look);
};
look();
"""


def wait_until_still(driver: Any) -> None:
    """Until the picture's place has been the same for ten frames: who aims at a moving one misses."""
    driver.execute_async_script(UNTIL_STILL)


def complaints(driver: Any) -> list[str]:
    """What the page's console said since it was asked last, apart from answers that are no fault."""
    return [f"{one['level']}: {one['message']}" for one in driver.get_log("browser") if one["level"] != "INFO"]
