from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL
import pytest
from PIL import Image

from scorefield.data.images.read import ImageOptions, TooSmall, convert, fit, image_size, read_image
from scorefield.runtime.errors import InputError


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def read(image: Image.Image, kind: str = "PNG", **options) -> tuple[str, np.ndarray]:
    opened = read_image(encoded(image, kind, **options))
    return opened.mode, np.asarray(opened)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_grey_and_colour_are_exact(paint, kind: str) -> None:
    grey, colour = paint(9, 7, 1), paint(9, 7)
    mode, array = read(Image.fromarray(grey), kind)
    if kind == "GIF":  # a palette always, of colours even where they are grey
        assert mode == "RGB"
        array = array[..., 0]
    else:
        assert mode == "L"
        mode, rgb = read(Image.fromarray(colour), kind)
        assert mode == "RGB"
        assert np.array_equal(rgb, colour)
    assert np.array_equal(array, grey)


def test_webp_and_jpeg(paint) -> None:
    colour = paint(16, 16)
    assert np.array_equal(read(Image.fromarray(colour), "WEBP", lossless=True)[1], colour)
    smooth = np.tile(np.arange(0, 160, 10, dtype=np.uint8)[:, None, None], (1, 16, 3))
    assert np.abs(read(Image.fromarray(smooth), "JPEG", quality=100)[1].astype(int) - smooth).max() <= 2


def test_transparency_is_laid_over_white() -> None:
    pixels = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [0, 100, 0, 128]]], dtype=np.uint8)
    mode, array = read(Image.fromarray(pixels))
    assert mode == "RGB"
    assert np.abs(array[0].astype(int) - [[200, 0, 0], [255, 255, 255], [127, 177, 127]]).max() <= 1
    mode, array = read(Image.fromarray(pixels[..., [0, 3]]))
    assert mode == "L"
    assert np.abs(array[0].astype(int) - [200, 255, 127]).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB", "P", "1"])
def test_a_transparent_colour_is_white_too(mode: str) -> None:
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), {"L": 90, "RGB": (9, 9, 9), "P": 1, "1": 255}[mode])  # type: ignore[arg-type]
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 20, 30])
    array = read(image, transparency=(0, 0, 0) if mode == "RGB" else 0)[1]
    assert (array[0, 0] == 255).all()
    expected = {"L": 90, "RGB": (9, 9, 9), "P": (10, 20, 30), "1": 255}[mode]
    assert np.array_equal(array[0, 1], expected)  # type: ignore[arg-type]


def test_palette_with_several_alphas() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 100, 100, 100, 50, 60, 70])
    image.putdata([0, 1, 2])
    array = read(image, transparency=bytes([0, 128, 255]))[1][0]
    assert np.abs(array.astype(int) - [[255] * 3, [177] * 3, [50, 60, 70]]).max() <= 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    deep = np.array([[0, 1, 128, 129, 256, 32_768, 65_406, 65_407, 65_535]], dtype=np.uint16)
    mode, array = read(Image.fromarray(deep), kind)
    assert mode == "L"
    assert np.array_equal(array, np.round(deep / 257).astype(np.uint8))


def test_big_endian_sixteen_bits() -> None:
    image = Image.frombytes("I;16B", (3, 1), bytes([0x00, 0x00, 0x80, 0x00, 0xFF, 0xFF]))
    assert read(image, "TIFF")[1].tolist() == [[0, 128, 255]]


def test_one_bit_and_cmyk() -> None:
    assert read(Image.fromarray(np.array([[True, False]])))[1].tolist() == [[255, 0]]
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    for kind in ("TIFF", "JPEG"):
        mode, array = read(cmyk, kind)
        assert mode == "RGB"
        assert np.abs(array.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.skipif(
    int(PIL.__version__.split(".")[0]) < 13, reason="Pillow before 13 writes such a TIFF file truncated"
)
def test_luminance_and_chrominance() -> None:
    mode, array = read(Image.new("YCbCr", (4, 4), (100, 128, 128)), "TIFF")
    assert mode == "RGB"
    assert np.abs(array.astype(int) - 100).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    upright = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)[1], upright)


def test_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("L", (4, 4), value) for value in (40, 200)]
    data = encoded(frames[0].convert("P"), "GIF", save_all=True, append_images=[frames[1].convert("P")])
    assert (np.asarray(convert(read_image(data), 1)) == 40).all()


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("F", (4, 4), 0.5), "floating-point"),
        (Image.new("I", (4, 4), 70_000), "32-bit"),
        (Image.new("I", (4, 4), -1), "32-bit"),
    ],
)
def test_pixels_of_unknown_range_are_refused(image: Image.Image, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(image, "TIFF")


def test_bombs_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch, paint) -> None:
    data = encoded(Image.fromarray(paint(40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1599)  # Pillow itself only warns up to twice the limit
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(ValueError, match="40×40 pixels exceed"):
        read_image(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(Image.DecompressionBombError):
        read_image(data)


def test_other_programs_are_not_started(tmp_path: Path) -> None:
    script = tmp_path / "picture.png"
    script.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(OSError, match="cannot identify"):
        read_image(script)


def test_convert() -> None:
    colour = Image.new("RGB", (1, 1), (255, 0, 0))
    assert convert(colour, 1).getpixel((0, 0)) == 76
    assert convert(colour, 3).mode == convert(colour, None).mode == "RGB"
    assert convert(Image.new("L", (1, 1), 7), 3).getpixel((0, 0)) == (7, 7, 7)


def test_fit_crops_the_centre_untouched(paint) -> None:
    wide = paint(8, 13, 1)
    assert np.array_equal(np.asarray(fit(Image.fromarray(wide), 8, False)), wide[:, 2:10])
    assert np.array_equal(np.asarray(fit(Image.fromarray(wide.T), 8, False)), wide.T[2:10])
    square = Image.fromarray(wide[:, :8])
    assert fit(square, 8, False) is square
    assert fit(square, None, False) is square


def test_fit_reduces_with_antialiasing() -> None:
    stripes = np.tile(np.array([0, 255], dtype=np.uint8), (64, 64))  # 64 × 128, at the finest scale there is
    reduced = np.asarray(fit(Image.fromarray(stripes), 16, False)).astype(int)
    assert reduced.shape == (16, 16)
    assert np.abs(reduced - 127.5).max() < 5
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    assert (
        np.abs(
            np.asarray(fit(Image.fromarray(ramp), 32, False))[16, 2:-2]
            - (ramp[0].reshape(32, 2).mean(1))[2:-2]
        ).max()
        <= 1
    )


def test_fit_is_reducing_then_cropping(paint) -> None:
    wide = Image.fromarray(paint(20, 60))
    reduced = wide.resize((30, 10), Image.Resampling.LANCZOS).crop((10, 0, 20, 10))
    assert np.array_equal(np.asarray(fit(wide, 10, False)), np.asarray(reduced))


def test_fit_has_no_preferred_side(paint) -> None:
    wide = paint(20, 60, 1)
    wide[:, 30:] = wide[:, 29::-1]
    fitted = np.asarray(fit(Image.fromarray(wide), 10, False))
    assert np.array_equal(fitted, fitted[:, ::-1])


def test_small_pictures_need_upscale() -> None:
    with pytest.raises(TooSmall, match="40×9"):
        fit(Image.new("L", (40, 9)), 10, False)
    assert fit(Image.new("L", (40, 9), 70), 10, True).size == (10, 10)
    assert fit(Image.new("L", (1, 1), 70), 10, True).getpixel((5, 5)) == 70


@pytest.mark.parametrize(
    ("size", "channels", "message"), [(0, 3, "at least 1 pixel"), (-4, 1, "pixel"), (8, 2, "channels = 2")]
)
def test_options(size: int, channels: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ImageOptions(size, channels)


def test_sizes_are_read_without_decoding(tmp_path: Path, paint) -> None:
    Image.fromarray(paint(5, 7)).save(tmp_path / "a.png")
    assert image_size(tmp_path / "a.png") == (7, 5)
    ihdr = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + b"IHDR"
        + ihdr
        + struct.pack(">I", zlib.crc32(b"IHDR" + ihdr))
        + struct.pack(">I", 100)
        + b"IDAT"
    )
    (tmp_path / "bomb.png").write_bytes(bomb)
    (tmp_path / "text.png").write_bytes(b"no picture")
    os.mkfifo(tmp_path / "pipe.png")
    for name, reason in (
        ("bomb.png", "2500000000 pixels"),
        ("text.png", "cannot identify"),
        ("pipe.png", "named pipe"),
        ("none.png", "no such file"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            image_size(tmp_path / name)
        assert "\n" not in str(caught.value)
        with pytest.raises(Exception, match=reason):
            read_image(tmp_path / name)
