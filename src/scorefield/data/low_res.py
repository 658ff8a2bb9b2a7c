"""The small images that a super-resolution model is to enlarge, as they are: never reduced, enlarged or cropped."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from scorefield.core.errors import InputError
from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset
from scorefield.data.files import folder, npz
from scorefield.data.gather import gather

__all__ = ["low_res_images"]


def low_res_images(path: str | Path, side: int, data: DataSpec) -> Dataset:
    """An .npz with `images` and optional `labels`, one picture, or a folder of them (subfolders are classes), N in all.

    The result's `batch` gives them in the range of `data`, the images that they are enlarged to, whose channels they get.
    InputError for images that are not side × side, and for any that cannot be read.
    """
    path, channels = Path(os.path.expanduser(path)), data.shape[0]
    if path.is_dir():
        small = folder(path, size=None, channels=channels, strict=True)
    elif path.suffix.lower() == ".npz":
        small = npz(path, channels=channels)
    else:
        small = _picture(path, channels)
    if small.spec.shape[1:] != (side, side):
        height, width = small.spec.shape[1:]
        raise InputError(f"{path}: this run enlarges images of {side}×{side} pixels, and these are {width}×{height}")
    return replace(small, spec=replace(small.spec, range=data.range))


def _picture(path: Path, channels: int) -> Dataset:
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    found = gather([(path.name, path)], 1, str(path), size=None, channels=channels, upscale=False, strict=True)
    return Dataset(DataSpec(found.levels.shape[1:], bins=256), torch.from_numpy(found.levels), None, str(path))
