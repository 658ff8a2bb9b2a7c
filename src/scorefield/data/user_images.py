"""Images that a user gives to a model to encode, upsample or inpaint.

To encode or inpaint they are brought to the model's size as training does it; those to upsample are never resized.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec, are_images
from scorefield.data.dataset import Dataset
from scorefield.data.images.eager import decode_all
from scorefield.data.images.read import ImageOptions
from scorefield.data.sources.folder import folder
from scorefield.data.sources.npz import from_arrays, npz
from scorefield.runtime.checks import brief
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import as_path

__all__ = ["UserImages", "images_of", "low_res_images", "mask_of", "read_images"]

UserImages = str | Path | np.ndarray  # a file or folder; uint8 (N, H, W) or (N, H, W, C)


def read_images(
    path: UserImages, channels: int | None, labels: np.ndarray | None = None, size: int | None = None
) -> Dataset:
    """Read images.

    Args:
        path: An .npz with `images` and optional `labels`, an image file, a folder of them (subfolders are
            classes), or an array: uint8 (N, H, W) or (N, H, W, C).
        channels: 1 (grey) or 3 (RGB). None: an .npz, an array and an image file keep theirs.
        labels: Of an array, (N,).
        size: Side in pixels that they are reduced and cropped to, as in training. None: they keep their size, and must
            all have one.

    Raises:
        InputError: If there is nothing, anything is unreadable or smaller than `size`, or images differ in size.
    """
    if isinstance(path, np.ndarray):
        return from_arrays(path, labels, _named(path), ImageOptions(size, channels))
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"images must be a NumPy array or the path of a file or folder; got {brief(path)}")
    path = as_path(path, "an image, an archive or a folder")
    if path.is_dir():
        return folder(path, size=size, channels=channels or 3, strict=True)
    if path.suffix.lower() == ".npz":
        return npz(path, size, channels)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    found = decode_all([(path.name, path)], 1, str(path), ImageOptions(size, channels, strict=True))
    spec = DataSpec(found.values.shape[1:], bins=256)
    return Dataset(spec, torch.from_numpy(found.values), None, str(path), notes=found.notes)


def images_of(path: UserImages, data: DataSpec, labels: np.ndarray | None = None) -> Dataset:
    """Read images as a model's data are: of its size, channels and range, and of its bins where it has fewer than 256.

    Larger images are reduced and cropped to the central square, as in training; where the model's are not square, images
    must have its size. Images that a run has made, saved with 256 bins, are rounded back to the run's bins, unchanged.

    Args:
        path: As for `read_images`.
        data: What one example of the model is.
        labels: As for `read_images`.

    Returns:
        N images; `batch` gives them in data.range, and `notes` says what was done to them.

    Raises:
        InputError: As `read_images`; for images of another size, and where `data` is not images.
    """
    if not are_images(data.shape):
        raise InputError(
            f"{_named(path)}: this model takes no images: its examples have shape {tuple(data.shape)}"
        )
    channels, height, width = data.shape
    found = read_images(path, channels, labels, size=height if height == width else None)
    if found.spec.shape[1:] != (height, width):
        raise InputError(
            f"{_named(path)}: this run's images have {width}×{height} pixels, but these have "
            f"{found.spec.shape[2]}×{found.spec.shape[1]}: resize them first"
        )
    spec = replace(found.spec, range=data.range)
    if data.bins is None or data.bins >= 256:
        return replace(found, spec=spec)
    return replace(
        found, spec=replace(spec, bins=data.bins), values=data.to_bins(spec.from_bins(found.everything()))
    )


def mask_of(path: UserImages, data: DataSpec) -> Tensor:
    """Read a black and white image as a mask for `Inpaint`.

    Args:
        path: An image file, or an array uint8 (1, H, W). Grey counts as the nearer of black and white.
        data: What one example of the model is.

    Returns:
        bool (H, W): True (known) where the image is black, False (to be filled) where it is white.

    Raises:
        InputError: As `images_of`; for several images, and where nothing is to be filled.
    """
    known = images_of(path, DataSpec((1, *data.shape[1:]), bins=256)).everything()[:, 0] < 128
    if len(known) != 1:
        raise InputError(f"{_named(path)}: a mask is one image, but there are {len(known)}")
    if bool(known.all()):
        raise InputError(
            f"{_named(path)}: the mask is black everywhere, so nothing would be inpainted: paint the region to "
            "inpaint white"
        )
    return known[0]


def low_res_images(path: UserImages, side: int, data: DataSpec, labels: np.ndarray | None = None) -> Dataset:
    """Read low-resolution images for a super-resolution model.

    Args:
        path: As for `read_images`.
        side: Their side in pixels.
        data: What one example of the model is, a high-resolution image.
        labels: As for `read_images`.

    Returns:
        N images (channels of `data`, side, side); `batch` gives them in data.range.

    Raises:
        InputError: As `read_images`, and for images that are not side × side.
    """
    small = read_images(path, data.shape[0], labels)
    if small.spec.shape[1:] != (side, side):
        height, width = small.spec.shape[1:]
        raise InputError(
            f"{_named(path)}: this run upsamples images of {side}×{side} pixels, and these are {width}×{height}"
        )
    return replace(small, spec=replace(small.spec, range=data.range))


def _named(images: UserImages) -> str:
    """What messages call images."""
    return "the images given as an array" if isinstance(images, np.ndarray) else str(images)
