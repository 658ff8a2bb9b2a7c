"""Grids: a row for each class with its name, no gaps where none are needed, one scale."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from scorefield.store.picture_grid import picture_grid, rows_of
from scorefield.store.writers import save_animation, save_images


@pytest.mark.parametrize(
    ("count", "labels", "lengths"),
    [
        (10, [3] * 10, [5, 5]),
        (8, list(range(8)), [4, 4]),
        (10, [0, 1] * 5, [5, 5]),
        (64, None, [8] * 8),
        (7, None, [7]),
        (12, None, [4, 4, 4]),
        (100, list(range(10)) * 10, [10] * 10),
        (32, [0, 1] * 16, [8] * 4),
        (9, [0, 1] * 4 + [0], [5, 4]),
        (40, list(range(40)), [8] * 5),
        (1, None, [1]),
        (13, None, [7, 6]),
    ],
)
def test_rows(count, labels, lengths):
    rows = rows_of(count, labels)
    assert [len(row) for row in rows] == lengths
    assert sorted(number for row in rows for number in row) == list(range(count))


def test_no_count_makes_a_tower_or_wide_gaps():
    for count in range(1, 200):
        rows = rows_of(count)
        across = len(rows[0])
        assert across >= len(rows)
        assert len(rows) * across - count < max(2, count / 10)


def test_rows_of_classes_are_in_the_order_of_their_first_image():
    assert rows_of(6, [4, 2, 4, 2, 4, 2]) == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_in_their_rows_beside_the_names(channels):
    images = torch.randint(0, 200, (4, channels, 8, 8), dtype=torch.uint8)
    labels = [1, 0, 1, 0]
    plain = np.asarray(picture_grid(images, columns=2))
    named = np.asarray(picture_grid(images, None, labels, ["cat", "dog"]))
    assert named.shape[0] == plain.shape[0]
    margin = named.shape[1] - plain.shape[1]
    assert margin > 10
    for label, top in ((1, 0), (0, 98)):  # a name in each of the two rows
        assert (named[top + 2 : top + 98, :margin] < 100).any(), label
    for number, (row, column) in {0: (0, 0), 2: (0, 1), 1: (1, 0), 3: (1, 1)}.items():
        top, left = 2 + 98 * row, margin + 2 + 98 * column
        shown = named[top : top + 96 : 12, left : left + 96 : 12].reshape(8, 8, channels)
        assert np.array_equal(shown, images[number].permute(1, 2, 0).numpy())


def test_strange_names_stay_names():
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    for names in (["\x1b[31m\n", "x" * 500], ["", "\udcff"], []):
        assert picture_grid(images, None, [0, 1, 0, 1], names).width < 2 * 98 + 200 * 2


@pytest.mark.parametrize("side", [8, 28, 32, 64, 200])
def test_every_picture_has_the_same_whole_scale(tmp_path, side):
    image = torch.randint(0, 256, (1, 1, side, side), dtype=torch.uint8)
    scale = max(1, 96 // side)
    save_images(tmp_path / "one.png", image)
    save_images(tmp_path / "many.png", image.expand(10, -1, -1, -1))
    save_animation(tmp_path / "a.gif", [image, image.flip(-1)])
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "many.png") as many:
        assert one.size == (side * scale + 4,) * 2
        assert many.size == (5 * (side * scale + 2) + 2, 2 * (side * scale + 2) + 2)
    with Image.open(tmp_path / "a.gif") as gif:
        assert [frame.size for frame in ImageSequence.Iterator(gif)] == [(side * scale + 4,) * 2] * 2
