"""A headless Chromium that opens the page and lets nothing pass: no request to another host, no error, no report of the
page's Content-Security-Policy.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from scorefield.studio.server import ADDRESS, build_app
from scorefield.studio.session import Studio

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TOKEN = "a token of the tests"
WAIT = 20_000  # ms, on a machine that others use too
_REPORTS = """
window.reports = [];
addEventListener("securitypolicyviolation", (event) => reports.push(event.violatedDirective + " " + event.blockedURI));
"""


@contextmanager
def served(roots: Sequence[Path], read_only: bool = False) -> Iterator[str]:
    """The page's server in a thread of this process: its address, without the fragment."""
    studio = Studio(roots, read_only=read_only)
    with socket.create_server((ADDRESS, 0)) as listener:
        port = listener.getsockname()[1]
        app = build_app(studio, port, TOKEN)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            yield f"http://{ADDRESS}:{port}/"
        finally:
            server.should_exit = True
            thread.join()
            studio.close()


class Visits:
    """Pages of one browser, each in a context of its own; `close` says what they did wrong."""

    def __init__(self, browser: Browser, address: str) -> None:
        self.browser, self.address = browser, address
        self.pages: list[Page] = []
        self.wrong: list[str] = []

    def open(self, fragment: str = "", **how: Any) -> Page:
        """A page at this fragment, once its panel has come. how: as of Playwright's new_context."""
        context = self.browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **how})
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.add_init_script(_REPORTS)
        page.on("request", self._asked)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.goto(f"{self.address}#token={TOKEN}{fragment and '&' + fragment.removeprefix('#')}")
        self.pages.append(page)
        return page

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((self.address, "blob:")):
            self.wrong.append(f"a request to {request.url}")

    def _said(self, message: Any) -> None:
        # A refusal is an answer of status 400, which a browser reports whatever the page makes of it.
        if message.type in ("error", "warning") and "status of 400" not in message.text:
            self.wrong.append(f"console: {message.text}")

    def close(self) -> None:
        """Close all pages."""
        for page in self.pages:
            self.wrong += [f"policy: {report}" for report in page.evaluate("window.reports")]
            page.context.close()
        self.pages = []
        assert not self.wrong, "\n".join(self.wrong)


def tab_to(page: Page, goal: Locator) -> None:
    """Press Tab until this has the focus."""
    for _ in range(80):
        if goal.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {goal}")
