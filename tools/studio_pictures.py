"""The pictures of the page in docs/howto/studio.md, of the run that `make demo` trains.

    python tools/studio_pictures.py runs docs/figures

It needs Chromium and playwright, as the page's tests do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from studio_browser import CHROMIUM, FLAGS, Visits, served

WAIT = 300_000  # ms


EYES = "80,64,112"  # of 16×16 pixels: 5 rows kept, 4 filled in, 7 kept


def finish(page: Page, text: str) -> None:
    """Press Run, and wait for what is said at the end."""
    button = page.get_by_role("button", name="Run", exact=True)
    page.wait_for_timeout(2000)  # the controls come before the plan
    expect(button).to_be_enabled(timeout=WAIT)
    button.click()
    page.get_by_text(text).first.wait_for(state="attached", timeout=WAIT)


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, help="the folder that holds the run portraits")
    parser.add_argument("figures", type=Path, help="where the pictures go")
    given = parser.parse_args()
    with served([given.runs]) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        visits = Visits(browser, address)
        page = visits.open("#/sample?run=0&sampler=ddim&steps=20&n=32&seed=3&guidance=1.5")
        finish(page, "Done:")
        page.screenshot(path=given.figures / "studio-sample.png")
        page = visits.open("#/training?runs=0", color_scheme="dark")
        page.get_by_role("figure").first.locator("path").first.wait_for(state="attached")
        page.screenshot(path=given.figures / "studio-training.png")
        page = visits.open(
            "#/field?show=solvers", viewport={"width": 1280, "height": 960}, reduced_motion="reduce"
        )
        finish(page, "Distance from the flow")
        page.wait_for_timeout(2000)  # the shading comes after the figures
        page.screenshot(path=given.figures / "studio-field.png")
        page = visits.open(f"#/edit?run=0&image=3&sampler=ddim&steps=20&n=4&mask={EYES}")
        finish(page, "Done:")
        page.screenshot(path=given.figures / "studio-edit.png")
        visits.close()
        browser.close()


if __name__ == "__main__":
    main()
