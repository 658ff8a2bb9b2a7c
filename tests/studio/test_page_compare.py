"""The panel Compare in a browser."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from studio_browser import WAIT, Visits

import scorefield as sf

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=WAIT)

# Runs by number, in the order of their names: classifier, digits, moons, upsampler.
TABLE = "#/compare?run=1&n=3&seed=5&rows=sampler&down=ddim,heun&columns=steps&across=2,4&reference=6"


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def run(page):
    """Press Run, once the page says what it costs, and wait for the end."""
    expect(page.get_by_text("network calls in")).to_be_visible()
    button(page, "Run").click()
    expect(page.get_by_text("Done:")).to_have_count(1)


def values(canvas):
    """The values (H, W) of a canvas of grey images."""
    w, h, drawn = canvas.evaluate(
        "(c) => [c.width, c.height, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]"
    )
    return np.array(drawn, np.uint8).reshape(h, w, 4)[..., 0]


def test_cells_show_the_samples_and_the_distance_of_the_library(visits: Visits, root: Path) -> None:
    page = visits.open(TABLE)
    run(page)
    digits = sf.Run(root / "digits")
    many = digits.sample(3, 5, sampler="ddim", grid="uniform", steps=6, block=8).images
    low, high = digits.data_spec.range
    for sampler in ("ddim", "heun"):
        made = digits.sample(3, 5, sampler=sampler, steps=4, block=8)
        cell = page.get_by_role("cell").filter(has=button(page, f"sampler {sampler}, steps 4"))
        shown = values(cell.locator("canvas"))
        h, w = made.images[0].shape[:2]
        for k, image in enumerate(made.images):  # two images in a row, a pixel between them
            top, left = k // 2 * (h + 1), k % 2 * (w + 1)
            np.testing.assert_array_equal(shown[top : top + h, left : left + w], image.reshape(h, w))
        told = float(cell.inner_text().split("distance ")[1])
        apart = (high - low) / 255 * (made.images.astype(float) - many)
        assert told == pytest.approx(np.sqrt(np.square(apart).reshape(3, -1).mean(1)).mean(), rel=1e-3)
    expect(page.get_by_role("img", name="Distance by network calls")).to_be_visible()
    with page.expect_download() as saved:
        button(page, "Save table (CSV)").click()
    lines = list(csv.DictReader(io.StringIO(Path(saved.value.path()).read_text())))
    assert [(line["sampler"], line["steps"]) for line in lines] == [
        ("ddim", "2"),
        ("ddim", "4"),
        ("heun", "2"),
        ("heun", "4"),
    ]


def test_two_cells_are_compared_large_also_after_a_reload_and_on_a_narrow_screen(visits: Visits) -> None:
    page = visits.open(TABLE, viewport={"width": 360, "height": 740})
    run(page)
    page.reload()
    expect(page.get_by_text("Done:")).to_have_count(1)
    button(page, "sampler ddim, steps 2").click()
    large = page.get_by_role("region", name="Two cells")
    large.get_by_label("Compare with").select_option("sampler heun, steps 4")
    one, other = (
        values(large.get_by_role("img", name=f"Samples of {name}", exact=True)).astype(int)
        for name in ("sampler ddim, steps 2", "sampler heun, steps 4")
    )
    large.get_by_text("difference", exact=True).click()
    largest = abs(one - other).max()
    expect(large.get_by_role("status")).to_contain_text(f"at most by {largest}, which is drawn white")
    apart = values(large.get_by_role("img", name="Difference between", exact=False))
    np.testing.assert_allclose(apart, 255 * abs(one - other) / largest, atol=0.5)
    large.get_by_text("wipe", exact=True).click()
    expect(large.get_by_role("slider", name="Wipe between the two")).to_be_visible()
    expect(large.get_by_label("The command of this cell")).to_contain_text("--sampler ddim --steps 2")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_points_and_what_does_not_go_together(visits: Visits) -> None:
    page = visits.open("#/compare?run=2&n=16&sampler=ddim&rows=steps&down=2,3&columns=steps&across=4")
    expect(page.get_by_text("Rows and columns have the same setting")).to_be_visible()
    page.get_by_label("Columns", exact=True).select_option("none")
    page.get_by_label("Values of the rows", exact=True).fill("2, x")
    expect(page.get_by_text("x is not a number.")).to_be_visible()
    page.get_by_label("Values of the rows", exact=True).fill("2, 3")
    expect(page.get_by_text("5 network calls in 2 cells")).to_be_visible()
    run(page)
    expect(button(page, "Save picture")).to_be_hidden()
    button(page, "steps 3").click()
    expect(page.get_by_role("img", name="Samples of steps 3")).to_be_visible()


def test_a_refused_cell_says_why_and_stop_keeps_what_is_there(visits: Visits) -> None:
    page = visits.open("#/compare?run=1&n=2&sampler=ddim&rows=settings.eta&down=0,2&columns=steps&across=2")
    expect(page.get_by_text("network calls in 2 cells")).to_be_visible()
    page.get_by_text("1 of the cells not possible").click()
    expect(page.get_by_text("at most 1", exact=False)).to_be_visible()
    run(page)
    expect(button(page, "eta 0, steps 2")).to_be_enabled()
    expect(button(page, "eta 2, steps 2")).to_be_disabled()
    page = visits.open("#/compare?run=1&n=16&rows=steps&down=2,900&sampler=ddim")
    expect(page.get_by_text("902 network calls in 2 cells")).to_be_visible()
    button(page, "Run").click()
    expect(page.get_by_text("of 900")).to_be_visible()
    button(page, "Stop").click()
    expect(page.get_by_text("Stopped after 1 cell.")).to_be_visible()
    expect(button(page, "Run")).to_be_enabled()
    button(page, "steps 2").click()
    expect(page.get_by_role("img", name="Samples of steps 2", exact=True)).to_be_visible()
