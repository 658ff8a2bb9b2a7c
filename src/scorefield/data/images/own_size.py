"""The size to train at that images have by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from scorefield.data.images.read import image_size
from scorefield.data.images.scan import Listing
from scorefield.runtime.errors import InputError

__all__ = ["USUAL", "sizes_of", "usable_side"]

USUAL = 32  # pixels
_LEAST, _MOST = 8, 64  # pixels
_LOOKED_AT = 4096  # files


def usable_side(sizes: Iterable[tuple[int, int]]) -> int:
    """The side of images that are all squares of one size of 8 to 64 pixels, or the next smaller one that networks can
    halve: a multiple of 4, from 32 on of 8. Of all other images 32. Sizes are read as far as they are needed.

    Args:
        sizes: (width, height) of images.
    """
    side = 0
    for width, height in sizes:
        side = side or width
        if not width == height == side or not _LEAST <= side <= _MOST:
            return USUAL
    return side - side % (4 if side < USUAL else 8) if side else USUAL


def sizes_of(listing: Listing) -> Iterator[tuple[int, int]]:
    """(width, height) of files, without decoding them; of more than 4,096, of as many that are evenly spread. Files that cannot be
    read are passed over: reading the data names them.
    """
    count = len(listing)
    for number in (
        range(count) if count <= _LOOKED_AT else (k * count // _LOOKED_AT for k in range(_LOOKED_AT))
    ):
        try:
            yield image_size(listing.content(number))
        except InputError:
            continue
