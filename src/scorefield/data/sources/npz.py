"""Archives of images: .npz files with `images`, optional `labels` and further arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.data.arrays import RESERVED, is_numeric, numeric_tensor
from scorefield.data.dataset import Dataset, number_labels
from scorefield.data.images.found import FoundImages
from scorefield.data.images.own_size import usable_side
from scorefield.data.images.read import ImageOptions, TooSmall, convert, fit
from scorefield.data.images.scan import text
from scorefield.data.sources.opener import Opener, SourceOptions
from scorefield.runtime.array_files import ArrayHeader, array_headers, read_arrays
from scorefield.runtime.errors import InputError
from scorefield.runtime.free_memory import needs_memory
from scorefield.runtime.reading import as_path

__all__ = ["from_arrays", "npz"]

_NAMED = ("images", "labels")
_UNNAMED = ("arr_0", "arr_1")  # by np.savez without names, as in the samples of guided-diffusion
_HINT = "use np.savez(file, images=…)"


def npz(
    path: str | Path, size: int | None = None, channels: int | None = None, upscale: bool = False
) -> Dataset:
    """An archive with `images`, optional `labels` and further arrays -> a data set of 256 bins.

    `images` is uint8 (N, H, W) or (N, H, W, C) with C 1 or 3. `labels` (N,) is integers of any range or text;
    their sorted values become the class names, or, with `classes`, text (K,), label k is the class of that name.
    Every other array of numbers or booleans whose first size is N
    is kept by its name; other entries are ignored, and pickled objects are never loaded. An archive without
    `images` whose arrays have no names has them as `arr_0`, and labels as `arr_1`.

    Args:
        path: The .npz file.
        size: Side in pixels to reduce and crop images to, as `folder` does. Default: unchanged.
        channels: 1 (grey) or 3 (RGB). Default: unchanged.
        upscale: Enlarge images that are smaller than `size`.

    Raises:
        InputError: If the file cannot be read, or its arrays have other types or sizes.
    """
    options = ImageOptions(size, channels, upscale)
    file, source = as_path(path, "an archive of images"), text(str(path))
    headers = array_headers(file, source, _HINT)
    names = _UNNAMED if "images" not in headers and "arr_0" in headers else _NAMED

    def check(wanted: Mapping[str, ArrayHeader]) -> None:
        images = wanted[names[0]]
        if images.dtype.kind != "f":  # of which `from_arrays` says more
            _check_images(images.shape, images.dtype, source)

    arrays = read_arrays(file, source, names, names[:1], _HINT, check)
    called = None
    if names[1] in arrays and "classes" in headers and headers["classes"].dtype.kind == "U":
        called = read_arrays(file, source, ("classes",), (), _HINT)["classes"]
    found = from_arrays(arrays[names[0]], arrays.get(names[1]), source, options, called)
    further = [
        name
        for name, header in headers.items()
        if name not in (*RESERVED, *names) and is_numeric(header.dtype) and header.shape[:1] == (len(found),)
    ]
    more = read_arrays(file, source, further, (), "")
    how = {"size": size, "channels": channels, "upscale": upscale}
    return replace(
        found,
        arrays={name: numeric_tensor(name, array, source) for name, array in more.items()},
        read_as={"source": str(path), **{name: value for name, value in how.items() if value is not None}},
    )


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray | None,
    source: str,
    options: ImageOptions,
    names: np.ndarray | None = None,
) -> Dataset:
    """Images in memory -> a data set of 256 bins.

    Args:
        images: As `npz` takes them.
        labels: As `npz` takes them.
        source: What messages call them.
        options: How they are fitted.
        names: What the integer labels 0 … K−1 are called, text (K,).

    Raises:
        InputError: If they have other types or sizes.
    """
    finite = images.dtype.kind != "f" or bool(np.isfinite(images).all())
    _check_images(images.shape, images.dtype, source, finite)
    if images.ndim == 3:
        images = images[..., None]
    numbers, classes = (None, ()) if labels is None else _numbered(labels, names, source)
    if labels is not None and len(labels) != len(images):
        raise InputError(f"{source}: {len(images)} images but {len(labels)} labels")
    values = _fit_all(images, source, options)
    spec = DataSpec(shape=values.shape[1:], classes=classes, bins=256)
    height, width = images.shape[1:3]
    seen = FoundImages(len(images), len(images) * (height != width), (width, height), (width, height))
    return Dataset(spec, torch.from_numpy(values), numbers, source, notes=seen.notes(options))


def _check_images(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], source: str, finite: bool = True
) -> None:
    """InputError where an array of this shape and type is no images."""
    if dtype != np.uint8:
        hint = (
            "scale them to 0 … 255 and use .astype('uint8')"
            if finite
            else "they also hold NaN or infinite values"
        )
        raise InputError(f"{source}: `images` must be uint8 (0 … 255), got {dtype}: {hint}")
    last = shape[3] if len(shape) == 4 else 1
    if len(shape) not in (3, 4) or 0 in shape or last not in (1, 3):
        swap = len(shape) == 4 and shape[1] in (1, 3)
        raise InputError(
            f"{source}: `images` must be (N, H, W) or (N, H, W, C), C 1 or 3 and N at least 1, "
            f"got {shape}" + (": channels come last, use images.transpose(0, 2, 3, 1)" if swap else "")
        )


def _numbered(labels: np.ndarray, names: np.ndarray | None, source: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as indices into class names, and these; InputError where the names do not fit the labels."""
    if names is None or labels.dtype.kind not in "iu":
        return number_labels(labels, source)
    count = len(names) if names.ndim == 1 else 0
    if labels.ndim != 1 or len(set(names.tolist())) != count or not _within(labels, count):
        raise InputError(
            f"{source}: `classes` must be the different names of the labels 0 … K−1, text (K,); got {names.dtype} "
            f"{names.shape} and labels up to {labels.max(initial=0)}: correct `classes`, or remove it"
        )
    return torch.from_numpy(labels.astype(np.int64)), tuple(map(str, names))


def _within(labels: np.ndarray, count: int) -> bool:
    return not labels.size or (int(labels.min()) >= 0 and int(labels.max()) < count)


def _fit_all(images: np.ndarray, source: str, options: ImageOptions) -> np.ndarray:
    """uint8 (N, H, W, C) -> (N, channels, size, size), by the same rules as image files."""
    count, height, width, depth = images.shape
    size, channels = options.size, options.channels
    if channels in (None, depth) and size in (None, height) and size in (None, width):
        turned = images.transpose(0, 3, 1, 2)
        if not turned.flags.c_contiguous:
            needs_memory(images.nbytes, f"{source}: {count:,} images with their channels first")
        return np.ascontiguousarray(turned)
    fitted = []
    for array in images:
        image = Image.fromarray(array[..., 0] if depth == 1 else array)
        try:
            found = np.asarray(convert(fit(image, size, options.upscale), channels))
        except TooSmall as small:
            raise InputError(
                f"{source}: {count} of {count} images are smaller than {size}×{size} (all are {small}): "
                f"ask for a smaller size, or set upscale to enlarge them"
            ) from small
        fitted.append(found[None] if found.ndim == 2 else found.transpose(2, 0, 1))
    return np.stack(fitted)


class _Npz(Opener):
    def own_side(self, name: str, options: SourceOptions) -> int:
        headers = array_headers(as_path(name, "an archive of images"), text(name), _HINT)
        images = headers.get("images", headers.get("arr_0"))
        shape = () if images is None else images.shape
        return usable_side([(shape[2], shape[1])] if len(shape) in (3, 4) else [])  # `open` refuses others

    def open(self, name: str, options: SourceOptions) -> Dataset:
        return npz(name, options.side, options.channels, options.upscale)


SOURCE = _Npz()
