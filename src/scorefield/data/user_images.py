"""Images that a user hands to a model: to be encoded, upsampled or inpainted. They are never resized or
cropped.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec, are_images
from scorefield.data.dataset import Dataset
from scorefield.data.images.eager import gather
from scorefield.data.sources.folder import folder
from scorefield.data.sources.npz import npz
from scorefield.runtime.errors import InputError

__all__ = ["as_they_are", "images_of", "low_res_images", "mask_of"]


def as_they_are(path: str | Path, channels: int | None) -> Dataset:
    """An .npz with `images` and optional `labels`, one picture, or a folder of them (subfolders are classes),
    in their own size.

    InputError: nothing there, anything unreadable, pictures that differ in size.
    """
    path = Path(os.path.expanduser(path))
    if path.is_dir():
        return folder(path, size=None, channels=channels or 3, strict=True)
    if path.suffix.lower() == ".npz":
        return npz(path, channels=channels)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    found = gather(
        [(path.name, path)], 1, str(path), size=None, channels=channels, upscale=False, strict=True
    )
    return Dataset(
        DataSpec(found.values.shape[1:], bins=256), torch.from_numpy(found.values), None, str(path)
    )


def images_of(path: str | Path, data: DataSpec) -> Dataset:
    """Images of the size, channels, range and levels of `data`, N in all; `batch` gives them in that range.

    Where `data` has fewer than 256 levels they are rounded to those: pictures that a run made stay what they
    are. InputError as for `as_they_are`, for images of another size, and where `data` is not images.
    """
    if not are_images(data.shape):
        raise InputError(
            f"{path}: pictures are for a model of images, and an example of this one has shape {tuple(data.shape)}"
        )
    channels, height, width = data.shape
    found = as_they_are(path, channels)
    if found.spec.shape[1:] != (height, width):
        raise InputError(
            f"{path}: this run's images have {width}×{height} pixels, and here are {found.spec.shape[2]}×{found.spec.shape[1]}: "
            "bring them to that size first"
        )
    spec = replace(found.spec, range=data.range)
    if data.bins is None or data.bins >= 256:
        return replace(found, spec=spec)
    return replace(
        found, spec=replace(spec, bins=data.bins), values=data.to_bins(spec.from_bins(found.everything()))
    )


def mask_of(path: str | Path, data: DataSpec) -> Tensor:
    """A black and white picture as a mask (H, W) for `Inpaint`: True (known) where it is black, to be filled
    where it is white.

    Grey counts as the nearer of the two. InputError as for `images_of`, for several pictures, and where
    nothing is to be filled.
    """
    known = images_of(path, DataSpec((1, *data.shape[1:]), bins=256)).everything()[:, 0] < 128
    if len(known) != 1:
        raise InputError(f"{path}: a mask is one picture, and there are {len(known)}")
    if bool(known.all()):
        raise InputError(
            f"{path}: this mask is black everywhere, so nothing is to be filled: paint what is to be filled white"
        )
    return known[0]


def low_res_images(path: str | Path, side: int, data: DataSpec) -> Dataset:
    """An .npz with `images` and optional `labels`, one picture, or a folder of them (subfolders are classes),
    N in all.

    The result's `batch` gives them in the range of `data`, the images that they are enlarged to, whose
    channels they get. InputError for images that are not side × side, and for any that cannot be read.
    """
    small = as_they_are(path, data.shape[0])
    if small.spec.shape[1:] != (side, side):
        height, width = small.spec.shape[1:]
        raise InputError(
            f"{path}: this run enlarges images of {side}×{side} pixels, and these are {width}×{height}"
        )
    return replace(small, spec=replace(small.spec, range=data.range))
