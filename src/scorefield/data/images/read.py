"""Read one image file: any mode becomes upright, opaque grey or RGB, and any size the requested size."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from scorefield.runtime.bounds import SIDE
from scorefield.runtime.checks import brief
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import open_file, reading

__all__ = [
    "EXTENSIONS",
    "LARGEST",
    "NO_IMAGE",
    "PEAK",
    "WHITE",
    "ImageOptions",
    "TooSmall",
    "convert",
    "fit",
    "image_size",
    "read_image",
]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Listed, because Pillow's reader of EPS starts another program, whatever the name of the file.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
WHITE = 65_535  # in 16-bit images
PEAK = "largest 16-bit value"  # in the info of an image whose file has 16 bits
LARGEST = 2**30  # bytes of an image file: more than an uncompressed one of as many pixels as Pillow decodes
NO_IMAGE = "no image: the row holds none, or names a file that is not in the folder of the data"
_SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class TooSmall(InputError):
    """An image's shorter side is below the requested size."""

    def __init__(self, width: int, height: int) -> None:
        super().__init__(f"{width}×{height}")


@dataclass(frozen=True)
class ImageOptions:
    """How image files become arrays.

    Attributes:
        size: Side in pixels to reduce and crop to. None: unchanged, and then all images must have one size.
        channels: 1 (grey) or 3 (RGB). None: 1 where all images are grey, otherwise 3.
        upscale: Enlarge images that are smaller than `size`, which is an error otherwise.
        strict: An unreadable image is an error.
        white: The value of white in 16-bit images; larger ones are white too.

    Raises:
        InputError: For a size below 1, for channels other than 1 and 3, and for white outside 1 … 65,535.
    """

    size: int | None = None
    channels: int | None = None
    upscale: bool = False
    strict: bool = False
    white: int = WHITE

    def __post_init__(self) -> None:
        if self.size is not None and not _is_whole(self.size, SIDE):
            raise InputError(
                f"the image size must be at least 1 pixel and at most {SIDE:,}, got {brief(self.size)}"
            )
        if self.channels is not None and (not _is_whole(self.channels, 3) or self.channels == 2):
            raise InputError(
                f"images have 1 channel (grey) or 3 (RGB), got channels = {brief(self.channels)}"
            )
        if not _is_whole(self.white, WHITE):
            raise InputError(f"white is a value of 16-bit images, 1 … {WHITE:,}; got {brief(self.white)}")


def _is_whole(value: object, most: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and 1 <= int(value) <= most


def read_image(source: Path | bytes, white: int = WHITE) -> Image.Image:
    """Decode a file, or its bytes, into mode "L" or "RGB".

    EXIF orientation is applied, transparency is composited over white, and of animations the first frame is
    read. Of 16-bit images `white` becomes 255. Any exception may be raised for a file that is damaged, of an unknown format, or larger than
    Pillow's limit against decompression bombs.
    """
    with _opened(source) as image:
        return _flatten(ImageOps.exif_transpose(image), white)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file, without decoding it. InputError for a file that `read_image` would not read."""
    with reading(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Pillow finds odd in a file that it reads well
        with _opened(path) as image:
            return image.size


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    with ExitStack() as stack:
        if isinstance(source, bytes):
            file: BinaryIO = io.BytesIO(source)
        else:
            try:
                file = stack.enter_context(open_file(source, "an image", LARGEST))
            except InputError as fault:  # of one image, which need not be the end
                reason = str(fault).removeprefix(f"{source}: ").removesuffix("; expected an image")
                raise OSError(reason) from None
        try:
            image = stack.enter_context(Image.open(file, formats=_FORMATS))
        except UnidentifiedImageError:  # whose message shows the open file
            raise OSError("cannot identify image file: damaged, or of an unknown format") from None
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and image.width * image.height > limit:
            raise ValueError(f"{image.width}×{image.height} pixels exceed Pillow's limit of {limit}")
        yield image


def _flatten(image: Image.Image, white: int) -> Image.Image:
    """Any mode -> "L" or "RGB"."""
    if image.mode in _SIXTEEN_BIT:
        return _from_sixteen_bit(image, white)
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is not known")
    if image.mode == "La":  # the one mode that Pillow only unmultiplies
        image = image.convert("LA")
    grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image.getchannel("R") if grey else image
    return image.convert("L" if grey else "RGB")


def _from_sixteen_bit(image: Image.Image, white: int) -> Image.Image:
    """Scale 0 … white to 0 … 255, rounded; Pillow's own conversion would clip everything above 255."""
    values = np.asarray(image)
    peak = int(values.max())
    if values.min() < 0 or peak > WHITE:
        raise ValueError("32-bit pixels, whose range is not known")
    scaled = (values.clip(max=white).astype(np.uint32) * 255 + white // 2) // white
    found = Image.fromarray(scaled.astype(np.uint8))
    found.info[PEAK] = peak
    return found


def convert(image: Image.Image, channels: int | None) -> Image.Image:
    """Convert to "L" for 1 channel (ITU-R 601 luma) and to "RGB" for 3; unchanged for None."""
    return image if channels is None else image.convert("L" if channels == 1 else "RGB")


def fit(image: Image.Image, size: int | None, upscale: bool) -> Image.Image:
    """The central square, resized to size × size with an antialiased Lanczos filter.

    An image whose shorter side is `size` is only cropped: its pixels are unchanged. TooSmall is raised for
    one whose shorter side is less, unless `upscale`. None changes nothing.
    """
    if size is None or image.size == (size, size):
        return image
    short = min(image.size)
    if short < size and not upscale:
        raise TooSmall(*image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = (left, top, left + short, top + short)
    if short == size:
        return image.crop(square)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=square)
