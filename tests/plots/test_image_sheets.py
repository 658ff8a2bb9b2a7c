"""Sheets of images: every pixel of every image is a square of equal pixels, in its place."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import scorefield as sf


def written(figure) -> np.ndarray:
    """What `savefig` writes, which is what a notebook shows too."""
    file = io.BytesIO()
    figure.savefig(file)
    with Image.open(io.BytesIO(figure._repr_png_())) as shown, Image.open(file) as saved:
        assert np.array_equal(np.asarray(shown), np.asarray(saved))
        return np.asarray(saved.convert("RGB"))


def squares(sheet: np.ndarray, image: np.ndarray, scale: int) -> int:
    """How often an image (H, W, 3), enlarged by `scale`, stands in the sheet."""
    large = image.repeat(scale, axis=0).repeat(scale, axis=1)
    corners = np.argwhere((sheet == large[0, 0]).all(axis=-1))
    height, width = large.shape[:2]
    return sum(np.array_equal(sheet[y : y + height, x : x + width], large) for y, x in corners)


def random_images(n: int, channels: int = 3, side: int = 16) -> torch.Tensor:
    """Values of 256 levels in [−1, 1]."""
    draws = torch.randint(0, 256, (n, channels, side, side), generator=torch.Generator().manual_seed(0))
    return draws / 127.5 - 1


@pytest.mark.parametrize(("across", "scale"), [(2, 6), (10, 3), (30, 1)])
def test_images_are_enlarged_by_whole_pixels(across, scale):
    images = random_images(across)
    sheet = written(sf.plots.draw_images({"a row": images}, columns=across, title="a title"))
    for image in (images[0], images[-1]):
        levels = ((image + 1) * 127.5).round().byte().numpy().transpose(1, 2, 0)
        assert squares(sheet, levels, scale) == 1


def test_a_long_row_goes_on_below():
    images = random_images(5)
    short, long = (written(sf.plots.draw_images(x, columns=3)) for x in (images[:3], images))
    assert long.shape == (short.shape[0] + 96 + 4, short.shape[1], 3)


def test_arrays_grey_images_and_samples_are_taken():
    values = torch.randint(0, 256, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0)).byte()
    samples = sf.Samples(values, sf.DataSpec((1, 8, 8), bins=256))
    sheets = [written(sf.plots.draw_images(x)) for x in (values / 127.5 - 1, values[:, 0].numpy(), samples)]
    assert np.array_equal(sheets[0], sheets[1])
    assert np.array_equal(sheets[0], sheets[2])


def test_scales_are_rows_of_equal_seeds():
    images = random_images(4)
    sheet = written(sf.plots.draw_guidance_scales({0: images, 2.5: images}))
    levels = ((images[1] + 1) * 127.5).round().byte().numpy().transpose(1, 2, 0)
    assert squares(sheet, levels, 6) == 2
    with pytest.raises(sf.InputError, match=r"same number of images; got 4 at s = 0, 3 at s = 2"):
        sf.plots.draw_guidance_scales({0: images, 2: images[:3]})


def test_a_walk_stands_between_its_ends():
    images, frames = random_images(2)[None], random_images(5)[None] / 2
    sheet = written(sf.plots.draw_walks(images, torch.zeros(1, 2, 3, 16, 16), frames))
    side, gap = 4 * 16, 4
    assert sheet.shape[1] == 8 + 9 * (side + gap) - gap + 8
    row = sheet[-8 - side : -8, 8:]
    assert (row[:, side + gap : 2 * side + gap] == 128).all()  # a latent of 0 is mid grey
    first, last = (((image + 1) * 127.5).round().byte().numpy().transpose(1, 2, 0) for image in images[0])
    assert np.array_equal(row[:side:4, :side:4], first)
    assert np.array_equal(row[::4, 8 * (side + gap) : -8][:, ::4], last)
    with pytest.raises(sf.InputError, match=r"latents of 1 walks must be \(W, 2, C, H, W\)"):
        sf.plots.draw_walks(images, torch.zeros(1, 3, 3, 16, 16), frames)


def test_what_are_no_images_is_refused():
    with pytest.raises(sf.InputError, match="points: images are a tensor"):
        sf.plots.draw_images({"points": torch.zeros(5, 2)})
    with pytest.raises(sf.InputError, match=r"images of one size.*\(8, 8\), \(16, 16\)"):
        sf.plots.draw_images({"a": random_images(2), "b": random_images(2, side=8)})
    with pytest.raises(sf.InputError, match="nothing to draw"):
        sf.plots.draw_images({})
