"""Small runs, and the page's server on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import LEARNS, TinyRun

pytest.importorskip("starlette", reason="the page needs the extra studio: pip install 'scorefield[studio]'")

from studio_browser import CHROMIUM, FLAGS, Visits, served
from studio_page import Page

from scorefield.studio.session import Studio

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, tiny_run: TinyRun) -> Path:
    """A folder of small runs: digits (class-conditional), classifier, moons, upsampler."""
    folder = tmp_path_factory.mktemp("studio")
    for name, recipe, settings in (
        ("digits", "digits", (*LEARNS, "training.label_dropout=0.2")),
        ("classifier", "digits-classifier", LEARNS),
        ("moons", "toy-moons", ()),
        ("upsampler", "digits-upsampler", LEARNS),
    ):
        tiny_run.copy(folder / name, recipe, *settings)
    return folder


@pytest.fixture
def page(root: Path) -> Iterator[Page]:
    studio = Studio([root])
    yield Page(studio)
    studio.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A headless browser for the tests of a module."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="the page's tests need playwright: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("the page's tests need a browser: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    """The page's server on the small runs."""
    with served([root]) as found:
        yield found


@pytest.fixture
def visits(chromium: Browser, address: str) -> Iterator[Visits]:
    """Opens pages, and holds at the end that none asked another host or reported an error."""
    found = Visits(chromium, address)
    yield found
    found.close()
