"""The panel Edit in a browser: masks drawn by mouse and by keyboard, images of one's own, latents and walks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from studio_browser import WAIT, Visits, tab_to

import scorefield as sf

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=WAIT)

# Runs by number, in the order of their names: classifier, digits, moons, upsampler.
EDIT = "#/edit?run=1&image=3&sampler=ddim&steps=3&n=2&seed=5&labels=4"


def button(page: Any, name: str) -> Any:
    return page.get_by_role("button", name=name, exact=True)


def board(page: Any) -> Any:
    return page.get_by_role("application", name="Mask over the image")


def values(canvas: Any) -> np.ndarray:
    """The pixels (H, W, 3) of a canvas."""
    w, h, found = canvas.evaluate("""(c) => {
        const pen = new OffscreenCanvas(c.width, c.height).getContext("2d", { willReadFrequently: true });
        pen.drawImage(c, 0, 0);
        return [c.width, c.height, Array.from(pen.getImageData(0, 0, c.width, c.height).data)];
    }""")
    return np.array(found, np.uint8).reshape(h, w, 4)[..., :3]


def drag(page: Any, *points: tuple[float, float]) -> None:
    """Paint from pixel to pixel of an image of 8×8, by its middle."""
    box = board(page).bounding_box()
    for i, (x, y) in enumerate(points):
        page.mouse.move(
            box["x"] + (x + 0.5) / 8 * box["width"], box["y"] + (y + 0.5) / 8 * box["height"], steps=3
        )
        if i == 0:
            page.mouse.down()
    page.mouse.up()


def run(page: Any, done: str) -> None:
    button(page, "Run").click()
    expect(page.get_by_text(f"Done: {done}.")).to_have_count(1)


def saved(page: Any, name: str) -> list[np.ndarray]:
    """The images that a button saves."""
    found: list[Any] = []
    page.on("download", lambda one: found.append(one))
    button(page, name).click()
    for _ in range(100):
        if len(found) == name.count(".png"):
            break
        page.wait_for_timeout(20)
    return [np.array(Image.open(one.path())) for one in found]


def test_a_drawn_mask_is_filled_and_the_known_part_is_exact(visits: Visits, root: Path) -> None:
    page = visits.open(EDIT)
    expect(page.get_by_text("0 of 64 pixels to fill in")).to_be_visible()
    expect(button(page, "Run")).to_be_disabled()
    page.get_by_label("Brush size").fill("1")
    drag(page, (2, 2), (5, 2), (5, 4))
    expect(page.get_by_text("6 of 64 pixels to fill in")).to_be_visible()
    for name, left in (("Invert", 58), ("Undo", 6), ("Redo", 58), ("Clear", 0), ("Undo", 58), ("Undo", 6)):
        button(page, name).click()
        expect(page.get_by_text(f"{left} of 64 pixels to fill in")).to_be_visible()
    page.get_by_role("radio", name="Eraser").check(force=True)
    drag(page, (5, 4), (5, 4))
    expect(page.get_by_text("5 of 64 pixels to fill in")).to_be_visible()
    run(page, "2 fillings")

    image, mask = saved(page, "Save image.png and mask.png")
    assert mask[2, 2:6].all()
    assert mask.astype(bool).sum() == 5
    made = sf.Run(root / "digits").sample(2, 5, [4], sampler="ddim", steps=3, block=8, inpaint=(image, mask))
    for k in range(2):
        shown = values(page.get_by_role("button", name=f"filling {k}").locator("canvas").last)[..., 0]
        np.testing.assert_array_equal(shown, made.images[k])
        np.testing.assert_array_equal(shown[mask == 0], image[mask == 0])
    np.testing.assert_array_equal(values(board(page).locator("canvas").first)[..., 0], image)

    again = visits.open(
        page.url.split("/", 3)[-1].removeprefix("#")
    )  # a link restores image, mask and controls
    expect(again.get_by_text("5 of 64 pixels to fill in")).to_be_visible()
    expect(again.get_by_label("Steps", exact=True)).to_have_value("3")
    page.get_by_role("button", name="filling 1").click()
    button(page, "Edit this filling").click()
    expect(page.get_by_text("sample 1 of seed 5", exact=False)).to_be_visible()
    np.testing.assert_array_equal(values(board(page).locator("canvas").first)[..., 0], made.images[1])


def test_a_mask_is_painted_by_keyboard_alone(visits: Visits) -> None:
    page = visits.open(EDIT)
    expect(page.get_by_text("0 of 64 pixels to fill in")).to_be_visible()
    tab_to(page, board(page))
    told = page.get_by_text("Row 5, column 6: to fill in. 1 of 64 pixels to fill in.")
    page.keyboard.press("[")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    expect(told).to_have_count(1)
    page.keyboard.press("]")
    page.keyboard.press("Space")
    expect(page.get_by_text("4 of 64 pixels to fill in", exact=True)).to_be_visible()
    page.keyboard.press("e")
    page.keyboard.press("[")
    page.keyboard.press("Space")
    expect(page.get_by_text("3 of 64 pixels to fill in", exact=True)).to_be_visible()
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(page.get_by_text("1 of 64 pixels to fill in", exact=True)).to_be_visible()
    page.keyboard.press("Control+Shift+z")
    expect(page.get_by_text("4 of 64 pixels to fill in", exact=True)).to_be_visible()
    expect(button(page, "Run")).to_be_enabled()
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Done: 2 fillings.")).to_have_count(1)


def test_an_image_of_ones_own_to_its_latent_and_back(visits: Visits, root: Path) -> None:
    page = visits.open("#/edit?run=1&task=encode&label=2&steps=4")
    page.get_by_label("Image", exact=True).select_option("File of yours")
    file = page.get_by_label("Image: open a file")
    file.set_input_files({"name": "no.png", "mimeType": "image/png", "buffer": b"no image"})
    expect(page.get_by_label("Image", exact=True)).to_have_accessible_description(
        "no.png: the image is damaged, or no PNG, JPEG or WebP file"
    )
    array = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(array).save(content, "PNG")
    file.set_input_files({"name": "mine.png", "mimeType": "image/png", "buffer": content.getvalue()})
    expect(page.get_by_text("Cropped to its central square", exact=False)).to_be_visible()
    run(page, "encoded and decoded")
    (image,) = saved(page, "Save image.png")
    found = sf.Run(root / "digits")
    latents = found.encode(image[None], 2, steps=4, check=1)
    shown = values(page.get_by_role("img", name="Decoded, enlarged"))[..., 0]
    np.testing.assert_array_equal(shown, found.decode(latents).images[0])
    error = page.get_by_role("definition").first.inner_text().split()[0]
    assert float(error) == pytest.approx(latents.reconstruction_mse, rel=1e-2)


def test_a_walk_under_a_scrubber_and_a_sample_sent_to_edit(visits: Visits, root: Path) -> None:
    page = visits.open("#/edit?run=1&task=walk&from=s4&to=2&frames=3&label=1&steps=3")
    run(page, "3 frames")
    slider = page.get_by_role("slider", name="Frame")
    tab_to(page, slider)
    page.keyboard.press("End")
    expect(slider).to_have_attribute("aria-valuetext", "frame 3 of 3")
    (image,) = saved(page, "Save b.png")
    walk = sf.Run(root / "digits").interpolate(4, image, 3, 1, steps=3)
    tab_to(page, slider)
    for i in (2, 1):
        shown = values(page.get_by_role("img", name=f"Frame {i + 1} of the walk"))[..., 0]
        np.testing.assert_array_equal(shown, walk.images[i])
        page.keyboard.press("ArrowLeft")
    page.get_by_role("link", name="Sample").click()
    page.get_by_role("spinbutton", name="Samples").fill("2")
    page.get_by_role("spinbutton", name="Steps").fill("3")
    run(page, "2 samples, seed 0")
    page.get_by_role("button", name="sample 1").click()
    button(page, "Send to Edit").click()
    expect(page.get_by_role("heading", name="Fill in part of an image")).to_be_visible()
    expect(page.get_by_text("sample 1 of seed 0", exact=False)).to_be_visible()
    assert values(board(page).locator("canvas").first).std() > 0


def test_edit_is_narrow_and_dark(visits: Visits) -> None:
    page = visits.open(
        EDIT + "&mask=10,20,34", viewport={"width": 360, "height": 740}, color_scheme="dark", has_touch=True
    )
    expect(page.get_by_text("20 of 64 pixels to fill in")).to_be_visible()
    board(page).tap(position={"x": 300, "y": 300})
    expect(page.get_by_text("21 of 64 pixels to fill in")).to_be_visible()
    for task in ("Fill", "Encode", "Walk"):
        page.get_by_role("radio", name=task).check(force=True)
        expect(button(page, "Run")).to_be_enabled()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
