"""The panel Field in a browser, found by role and label as people find it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from studio_browser import WAIT, Visits, served, tab_to

import scorefield as sf
from scorefield.studio.plane_presets import PRESETS
from scorefield.studio.plane_sources import open_source

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=WAIT)

QUIET = {"reduced_motion": "reduce"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder without runs."""
    return tmp_path_factory.mktemp("nothing")


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served([root]) as found:
        yield found


def button(page, name):
    return page.get_by_role("button", name=name, exact=True)


def plane(page):
    return page.get_by_role("application", name="The plane", exact=False)


def cells(page, table, row):
    found = page.get_by_role("table", name=table, exact=False).get_by_role(
        "row", name=re.compile(rf"^{row}\b")
    )
    expect(found).to_be_visible()
    return found.get_by_role("cell").all_inner_texts()


def colours(page):
    """How many different colours the canvas has."""
    return plane(page).evaluate(
        "(c) => new Set(new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer)).size"
    )


def drag(page, places):
    """Press at the first of these places of the first square (shares of its side) and move to the others."""
    box = plane(page).bounding_box()
    side = (box["width"] - 16) / 2
    x, y = (lambda u: box["x"] + u * side), (lambda v: box["y"] + 40 + v * side)
    page.mouse.move(x(places[0][0]), y(places[0][1]))
    page.mouse.down()
    for u, v in places:
        page.mouse.move(x(u), y(v))
    page.mouse.up()


def test_without_runs_the_page_opens_on_field(visits: Visits) -> None:
    page = visits.open(**QUIET)
    expect(page.get_by_role("link", name="Field")).to_have_attribute("aria-current", "page")
    expect(page.get_by_label("Example", exact=True)).to_have_value("learned")
    expect(plane(page)).to_be_visible()
    page.wait_for_timeout(500)
    assert colours(page) > 50


def test_two_samplers_and_their_figures_are_the_librarys(visits: Visits) -> None:
    page = visits.open("#/field?show=solvers&seed=3", **QUIET)
    button(page, "Run").click()
    assert cells(page, "Figures", "Network calls")[:2] == ["5", "5"]
    preset = next(one for one in PRESETS if one.id == "solvers")
    mixture, process = open_source(preset.source).exact(), sf.process.cosine(100)
    model, noise = mixture.denoiser(process), sf.NoiseSource(3)
    x_T = process.prior((preset.n, 2), noise.at(0))
    flow = sf.sample(model, sf.samplers.DDIM(), sf.grids.full(process), x_T=x_T)
    ends = [
        sf.sample(model, sampler, sf.grids.uniform(process, 5), x_T=x_T)
        for sampler in (sf.samplers.DDIM(), sf.samplers.DPMSolver2M())
    ]
    off = [f"{float((x - flow).square().sum(dim=1).mean().sqrt()):.3f}" for x in ends]
    assert cells(page, "Figures", "Distance from the flow")[:2] == off
    likely = [f"{float(mixture.log_prob(x).mean()):.2f}".replace("-", "−") for x in ends]
    assert cells(page, "Figures", "Mean of ln p")[:2] == likely
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button(page, "Copy as Python").click()
    expect(page.get_by_text("The lines of Python are copied.", exact=False)).to_be_visible()
    names: dict[str, torch.Tensor] = {}
    exec(page.evaluate("navigator.clipboard.readText()"), names)
    assert torch.equal(names["b"], ends[1])


def test_a_click_says_what_the_library_says_there(visits: Visits) -> None:
    page = visits.open("#/field?show=solvers", **QUIET)
    slider = page.get_by_role("slider", name="Time")
    expect(slider).to_have_attribute("aria-valuetext", "t = 0")
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    expect(slider).to_have_attribute("aria-valuetext", "t = 20")
    tab_to(page, plane(page))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press("Enter")
    preset = next(one for one in PRESETS if one.id == "solvers")
    source = open_source(preset.source)
    x = torch.tensor([[source.reach / 40, source.reach / 8]])
    model = source.exact().denoiser(sf.process.cosine(100))
    assert cells(page, "At (", "t")[0] == "20"
    said = cells(page, "At (", "x̂0")[0]
    assert said == f"({', '.join(f'{value:.2f}' for value in model(x, 20).x0[0].tolist())})".replace("-", "−")
    log_p = float(source.exact().log_prob(x, model.process.level(20)))
    assert cells(page, "At (", "ln p")[0] == f"{log_p:.3f}".replace("-", "−")


def test_points_drawn_by_hand_are_learned_and_walked(visits: Visits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scorefield.studio.field_panel.STEPS", 60)
    page = visits.open("#/field", **QUIET)
    page.get_by_label("Points", exact=True).select_option("drawn")
    drag(page, [(0.2 + 0.03 * k, 0.5 + 0.2 * (-1) ** k) for k in range(20)])
    expect(page.get_by_text("20 points")).to_be_visible()
    button(page, "Undo").click()
    expect(page.get_by_text("19 points")).to_be_visible()
    tab_to(page, plane(page))
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    expect(page.get_by_text("20 points")).to_be_visible()
    button(page, "Run").click()
    expect(
        page.get_by_text(re.compile(r"Step 60 of 60.*Difference from the exact score: t = 5"))
    ).to_be_visible()
    assert re.fullmatch(r"\d+\.\d %", cells(page, "Figures", "Difference from the exact score")[1])
    assert cells(page, "Figures", "Network calls")[:2] == ["20", "20"]
    page.get_by_text("Drop a particle").click()
    drag(page, [(0.7, 0.3)])
    expect(button(page, "Take the particles away")).to_be_visible()
    again = visits.open(page.evaluate("location.hash"), **QUIET)
    expect(again.get_by_text("20 points")).to_be_visible()


def test_what_does_not_go_together_is_disabled_with_the_librarys_sentence(visits: Visits) -> None:
    page = visits.open("#/field?show=step", **QUIET)
    first = page.get_by_role("group", name="Square A")
    expect(first.get_by_role("option", name="ddim")).to_be_disabled()
    first.get_by_text("do not go with this score").click()
    expect(first.get_by_text("has only a score", exact=False).first).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_and_the_dark(visits: Visits, scheme: str) -> None:
    page = visits.open(
        "#/field?show=guidance", viewport={"width": 360, "height": 740}, color_scheme=scheme, **QUIET
    )
    button(page, "Run").click()
    expect(page.get_by_role("table", name="Figures")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.wait_for_timeout(500)
    assert colours(page) > 50


def test_one_step_goes_to_the_next_state_of_a_walk(visits: Visits) -> None:
    page = visits.open("#/field?show=solvers", **QUIET)
    button(page, "Run").click()
    expect(page.get_by_role("table", name="Figures")).to_be_visible()
    slider = page.get_by_role("slider", name="Time")
    button(page, "One step back").click()
    expect(slider).to_have_attribute("aria-valuetext", "t = 20")
    button(page, "One step back").click()
    expect(slider).to_have_attribute("aria-valuetext", "t = 40")
    button(page, "One step").click()
    expect(slider).to_have_attribute("aria-valuetext", "t = 20")
