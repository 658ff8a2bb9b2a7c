"""What the files of a set of images are like before they are fitted, in sentences for the user."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from scorefield.data.images.read import PEAK, WHITE, ImageOptions

__all__ = ["FoundImages", "facts_of"]


@dataclass
class FoundImages:
    """Sizes and depths of images as their files have them."""

    count: int = 0
    not_square: int = 0
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)
    peak: int = 0  # the largest value of a 16-bit image

    def add(self, size: tuple[int, int], peak: int) -> None:
        """Count an image.

        Args:
            size: Its (width, height) in pixels.
            peak: Its largest value if it has 16 bits, otherwise 0.
        """
        area = size[0] * size[1]
        if not self.count or area < self.smallest[0] * self.smallest[1]:
            self.smallest = size
        if area > self.largest[0] * self.largest[1]:
            self.largest = size
        self.count += 1
        self.not_square += size[0] != size[1]
        self.peak = max(self.peak, peak)

    def notes(self, options: ImageOptions) -> tuple[str, ...]:
        """What was done to the images, where it was not plain reading."""
        return tuple(text for text in (self._fitted(options.size), self._depth(options.white)) if text)

    def _fitted(self, size: int | None) -> str:
        if size is None or not self.count or self.smallest == self.largest == (size, size):
            return ""
        a, b = (f"{width}×{height}" for width, height in (self.smallest, self.largest))
        sizes = f"of {a}" if a == b else f"of {a} … {b}"
        cut = f", {self.not_square:,} of them cropped to the central square" if self.not_square else ""
        return f"{self.count:,} images {sizes} pixels are resized to {size}×{size}{cut}"

    def _depth(self, white: int) -> str:
        levels = self.peak * 255 // white + 1
        if not self.peak or white != WHITE or levels > 128:
            return ""
        likely = 2 ** self.peak.bit_length() - 1
        return (
            f"the 16-bit images have values up to {self.peak:,} of {WHITE:,}, which leaves {levels} of 256 grey "
            f"levels: if white has another value, set it (data.white={likely})"
        )


def facts_of(image: Image.Image) -> tuple[tuple[int, int], int]:
    """(width, height) of an image that `read_image` gave, and its largest value if its file has 16 bits, else 0."""
    return image.size, int(image.info.get(PEAK, 0))
