"""The panel Sample in a browser, found by role and label as people find it."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from studio_browser import WAIT, Visits, served, tab_to

import scorefield as sf

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=WAIT)

# Runs by number, in the order of their names: classifier, digits, moons, upsampler.
DIGITS = "#/sample?run=1&sampler=ddim&steps=4&n=3&seed=5"


def button(page, name, exact=True):
    return page.get_by_role("button", name=name, exact=exact)


def run(page):
    """Press Run, once the page says what it costs, and wait for the end."""
    expect(page.get_by_text("network call").first).to_be_visible()
    button(page, "Run").click()
    expect(page.get_by_text("Done:")).to_have_count(1)


def drawn(page, k):
    """The pixels (H, W, 3) that the page shows of a sample."""
    canvas = button(page, f"sample {k}", exact=False).first.locator("canvas").last
    w, h, values = canvas.evaluate("""(c) => {
        const pen = new OffscreenCanvas(c.width, c.height).getContext("2d", { willReadFrequently: true });
        pen.drawImage(c, 0, 0);
        return [c.width, c.height, Array.from(pen.getImageData(0, 0, c.width, c.height).data)];
    }""")
    return np.array(values, np.uint8).reshape(h, w, 4)[..., :3]


def test_the_page_shows_the_pixels_and_the_cost_that_the_library_gives(visits: Visits, root: Path) -> None:
    page = visits.open(DIGITS)
    expect(page.get_by_text(re.compile("^4 network calls"))).to_be_visible()
    run(page)
    made = sf.Run(root / "digits").sample(3, 5, sampler="ddim", steps=4, block=8)
    for k in range(3):
        shown = drawn(page, k)
        assert shown.std() > 0, "the canvas is blank"
        np.testing.assert_array_equal(shown[..., 0], made.images[k])


def test_sample_by_keyboard_alone(visits: Visits) -> None:
    page = visits.open("#/sample?run=1&n=4")
    expect(button(page, "Run")).to_be_enabled()
    tab_to(page, page.get_by_label("Sampler", exact=True))
    page.keyboard.type("ddim")
    tab_to(page, page.get_by_label("Steps", exact=True))
    page.keyboard.type("6")
    tab_to(page, page.get_by_role("checkbox", name="3", exact=True))
    page.keyboard.press("Space")
    expect(page.get_by_text(re.compile("^6 network calls"))).to_be_visible()
    tab_to(page, button(page, "Run"))
    page.keyboard.press("Enter")
    expect(page.get_by_text("Done: 4 samples, seed 0.")).to_have_count(1)
    page.keyboard.press("Shift+Tab")
    both = page.get_by_role("radio", name="x_t and x̂0 side by side")
    tab_to(page, page.get_by_role("radio", name="x̂0, the estimate of the image"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(both).to_be_checked()
    tab_to(page, button(page, "sample 0, 3"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    one = page.get_by_role("region", name="One sample")
    expect(one.get_by_role("heading", name="Sample 1")).to_be_visible()
    expect(one.get_by_role("button", name="Step 6")).to_be_visible()
    expect(one.get_by_role("img", name="Training image", exact=False).first).to_be_visible()
    slider = page.get_by_role("slider", name="Step")
    tab_to(page, slider)
    expect(slider).to_have_attribute("aria-valuetext", "step 6 of 6, t = 0")
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_value("5")
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    expect(slider).to_have_value("6")
    assert "sampler=ddim" in page.url
    assert "labels=3" in page.url


def test_what_does_not_go_is_disabled_or_refused_beside_its_control(visits: Visits, root: Path) -> None:
    page = visits.open("#/sample?run=2")
    page.get_by_text("2 of the runs here cannot be sampled").click()
    expect(page.get_by_text("a classifier has no samples", exact=False)).to_be_visible()
    assert page.get_by_role("option", name="classifier").is_disabled()
    assert page.get_by_role("option", name="ddim", exact=True).is_enabled()
    steps = page.get_by_label("Steps", exact=True)
    steps.fill("5")
    with pytest.raises(sf.ScorefieldError) as error:
        sf.Run(root / "moons").sampling(steps=5)
    expect(steps).to_have_accessible_description(str(error.value))
    expect(button(page, "Run")).to_be_disabled()
    steps.fill("20")
    expect(button(page, "Run")).to_be_enabled()
    expect(steps).to_have_accessible_description("")


def test_a_link_and_a_saved_picture_restore_the_settings(visits: Visits, tmp_path: Path) -> None:
    page = visits.open(DIGITS + "&set.eta=0.5&labels=1,2")
    run(page)
    with page.expect_download() as got:
        button(page, "Save picture").click()
    got.value.save_as(tmp_path / "saved.png")
    other = visits.open("#/sample?run=1")
    other.get_by_label("Open a saved picture").set_input_files(tmp_path / "saved.png")
    for one in (page, other):
        expect(one.get_by_label("Sampler", exact=True)).to_have_value("ddim")
        expect(one.get_by_label("Steps", exact=True)).to_have_value("4")
        expect(one.get_by_label("Eta", exact=True)).to_have_value("0.5")
        expect(one.get_by_label("Seed", exact=True)).to_have_value("5")
        expect(one.get_by_role("checkbox", name="2", exact=True)).to_be_checked()
    run(other)
    np.testing.assert_array_equal(drawn(page, 2), drawn(other, 2))
    other.get_by_label("Steps", exact=True).fill("7")
    other.get_by_label("Seed", exact=True).fill("11")
    other.get_by_label("with its seed").uncheck(force=True)
    drop_file(other.get_by_role("heading").first, tmp_path / "saved.png")
    expect(other.get_by_text("are back, but for its seed")).to_be_visible()
    expect(other.get_by_label("Steps", exact=True)).to_have_value("4")
    expect(other.get_by_label("Seed", exact=True)).to_have_value("11")
    other.get_by_label("Open a saved picture").set_input_files(
        {"name": "other.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    expect(other.get_by_text("other.png:")).to_be_visible()


def drop_file(target, path: Path) -> None:
    """Drag a file over an element and let it go there."""
    data = target.page.evaluate_handle(
        """([name, text]) => {
            const data = new DataTransfer();
            data.items.add(new File([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], name, { type: "image/png" }));
            return data;
        }""",
        [path.name, base64.b64encode(path.read_bytes()).decode()],
    )
    for event in ("dragover", "drop"):
        target.dispatch_event(event, {"dataTransfer": data})


def test_neighbours_of_a_latent_are_drawn(visits: Visits) -> None:
    page = visits.open(DIGITS)
    run(page)
    before = [drawn(page, k) for k in range(3)]
    button(page, "sample 2", exact=False).click()
    button(page, "Neighbours of its latent").click()
    expect(page.get_by_text("Neighbours of the latent of sample 2.")).to_be_visible()
    expect(page.get_by_text("Done: 3 samples, seed 5.")).to_have_count(1)
    expect(page.get_by_role("region", name="Last runs of this page").get_by_role("button")).to_have_count(2)
    np.testing.assert_array_equal(drawn(page, 2), before[2])
    assert (drawn(page, 0) != before[0]).any()
    button(page, "Copy as command").click()
    expect(page.get_by_text("No command draws neighbours of a latent", exact=False)).to_be_visible()
    assert "near=2%2C0.2" in page.url or "near=2,0.2" in page.url


def test_one_sample_again_and_the_last_runs(visits: Visits) -> None:
    page = visits.open(DIGITS)
    run(page)
    before = drawn(page, 2)
    button(page, "sample 2", exact=False).click()
    button(page, "This sample only").click()
    expect(page.get_by_text("Only sample 2 of this seed.")).to_be_visible()
    expect(page.get_by_text("Done: 1 sample, seed 5.")).to_have_count(1)
    np.testing.assert_array_equal(drawn(page, 2), before)
    last = page.get_by_role("region", name="Last runs of this page").get_by_role("button")
    expect(last).to_have_count(2)
    page.reload()
    expect(last).to_have_count(2)
    last.last.click()
    expect(button(page, "sample 0", exact=False).first).to_be_visible()
    button(page, "Use these settings").click()
    expect(page.get_by_text("Only sample 2 of this seed.")).to_have_count(0)


def test_stop_ends_a_job_and_the_command_is_copied(visits: Visits) -> None:
    page = visits.open("#/sample?run=1&n=64&steps=900&sampler=ancestral")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    expect(page.get_by_text("network calls").first).to_be_visible()
    button(page, "Copy as command").click()
    expect(page.get_by_text("The command is copied.", exact=False)).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("scorefield sample ")
    button(page, "Run").click()
    page.get_by_text("step 2", exact=False).first.wait_for()
    button(page, "Stop").click()
    expect(page.get_by_text("Stopped after", exact=False)).to_be_visible()
    expect(button(page, "Run")).to_be_enabled()


def test_narrow_dark_and_with_reduced_motion(visits: Visits) -> None:
    page = visits.open(
        DIGITS, viewport={"width": 360, "height": 740}, color_scheme="dark", reduced_motion="reduce"
    )
    run(page)
    button(page, "sample 1", exact=False).click()
    expect(button(page, "This sample only")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("getComputedStyle(document.querySelector('.toast')).transitionDuration") == "0s"
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        for one in (
            button(page, "Run"),
            page.get_by_text("Guidance scale"),
            page.get_by_role("heading").first,
        ):
            assert contrast(one) >= 4.5, f"{one} in {scheme}"


def contrast(element) -> float:
    """WCAG's contrast of a text with what is behind it."""
    colours = element.evaluate("""(element) => {
        const parse = (text) => text.match(/[\\d.]+/g).map(Number);
        let behind = element;
        while (behind && (parse(getComputedStyle(behind).backgroundColor)[3] ?? 1) === 0) behind = behind.parentElement;
        return [parse(getComputedStyle(element).color), parse(getComputedStyle(behind).backgroundColor)];
    }""")
    light = []
    for colour in colours:
        v = np.array(colour[:3]) / 255
        v = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
        light.append(float(v @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(light) / min(light)


def test_points_and_a_folder_without_runs(visits: Visits, tmp_path: Path) -> None:
    page = visits.open()
    page.get_by_label("Run", exact=True).select_option(label="moons")
    page.get_by_label("Steps", exact=True).fill("20")
    run(page)
    dots = page.get_by_role("img", name="Samples in the plane").evaluate(
        "(c) => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v).length"
    )
    assert dots > 50
    with served([tmp_path / "runs"]) as address:
        nothing = Visits(visits.browser, address)
        page = nothing.open("#/sample")
        expect(page.get_by_text("scorefield train portraits", exact=False)).to_be_visible()
        expect(button(page, "Run")).to_be_disabled()
        nothing.close()
