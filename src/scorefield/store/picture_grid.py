"""Many images as one picture: a row for each class, with its name, and whole multiples of a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from scorefield.runtime.printable import printable

__all__ = ["picture_grid", "rows_of"]

_GAP, _PAPER = 2, 255
_SHOWN = 96  # pixels of the side of an image in a picture, at most; an image that is larger keeps its size
_MOST_CLASSES, _WIDEST, _NARROWEST = 20, 12, 6  # classes that get rows; images in a row of a class
_TEXT, _LONGEST = 14, 18  # height of a name, in pixels; characters that are shown of it


def rows_of(count: int, labels: Sequence[int] | None = None) -> list[list[int]]:
    """Which image is where: rows of their numbers.

    Images of 2 to 20 classes, with several of one, have rows of their own for each class, in the order in which the
    classes first come. Other images fill rows of equal length, of which the last has a gap only where their number has no
    fitting divisor.
    """
    groups: dict[int, list[int]] = {}
    for number, label in enumerate(labels or ()):
        groups.setdefault(label, []).append(number)
    most = max(map(len, groups.values()), default=0)
    if 1 < len(groups) <= _MOST_CLASSES and most > 1:
        return [row for group in groups.values() for row in _cut(group, _class_width(most))]
    return _cut(list(range(count)), _width(count))


def picture_grid(
    images: Tensor,
    columns: int | None = None,
    labels: Sequence[int] | None = None,
    classes: Sequence[str] = (),
) -> Image.Image:
    """uint8 (N, 1 or 3, H, W) -> one picture. Small images are enlarged by a whole number, the same in every picture of
    images of this size.

    Args:
        images: In the order of their numbers.
        columns: Images in a row, whatever their classes. Default: as `rows_of` has it.
        labels: The class of each image.
        classes: Names of the classes, which stand beside their rows.
    """
    images = images.cpu()
    count, channels, height, width = images.shape
    plain = columns is not None
    rows = _cut(list(range(count)), columns) if columns is not None else rows_of(count, labels)
    scale = max(1, _SHOWN // max(height, width))
    height, width = height * scale, width * scale
    names = [] if plain or labels is None else _names_beside(rows, labels, classes)
    margin = _margin(names)
    across = max(map(len, rows))
    size = (len(rows) * (height + _GAP) + _GAP, margin + across * (width + _GAP) + _GAP, channels)
    sheet = np.full(size, _PAPER, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, number in enumerate(row):
            top, left = _GAP + i * (height + _GAP), margin + _GAP + j * (width + _GAP)
            enlarged = images[number].numpy().transpose(1, 2, 0).repeat(scale, axis=0).repeat(scale, axis=1)
            sheet[top : top + height, left : left + width] = enlarged
    picture = Image.fromarray(sheet.squeeze(-1) if channels == 1 else sheet)
    pen, middle = ImageDraw.Draw(picture), height / 2
    for i, name in enumerate(names):
        at = (margin - _GAP, _GAP + i * (height + _GAP) + middle)
        pen.text(at, name, fill=0 if channels == 1 else (0, 0, 0), font=_font(), anchor="rm")
    return picture


def _cut(numbers: list[int], width: int) -> list[list[int]]:
    return [numbers[start : start + width] for start in range(0, len(numbers), width)]


def _class_width(most: int) -> int:
    """Images in a row of a class of at most this many: all of them, or a part that leaves no gap."""
    if most <= _WIDEST:
        return most
    whole = [width for width in range(_WIDEST, _NARROWEST - 1, -1) if most % width == 0]
    return whole[0] if whole else math.ceil(most / math.ceil(most / _WIDEST))


def _width(count: int) -> int:
    """Images in a row: as many as leave the fewest gaps in a picture that is at most four times as wide as high, or all
    of a few; of several such widths the one nearest to a square.
    """
    few = [count] if count <= _WIDEST else []
    fitting = [width for width in range(1, count + 1) if 1 <= width / math.ceil(count / width) <= 4]
    return min(fitting + few, key=lambda width: (-count % width, width / math.ceil(count / width)), default=1)


def _names_beside(rows: Sequence[Sequence[int]], labels: Sequence[int], classes: Sequence[str]) -> list[str]:
    """A name for each row whose images are of one class, at the first row of the class; nothing where rows are mixed."""
    names: list[str] = []
    of_row = [{labels[number] for number in row} for row in rows]
    if any(len(found) > 1 for found in of_row):
        return []
    for i, found in enumerate(of_row):
        (label,) = found
        name = printable(classes[label]) if label < len(classes) else str(label)
        name = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
        names.append("" if i and of_row[i - 1] == found else name)
    return names


def _margin(names: Sequence[str]) -> int:
    """Pixels left of the images, for these names."""
    longest = max((_font().getlength(name) for name in names), default=0)
    return math.ceil(longest) + 3 * _GAP if longest else 0


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TEXT)
