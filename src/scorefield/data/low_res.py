"""The small images that a super-resolution model is to enlarge, as they are: never reduced, enlarged or cropped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scorefield.core.errors import InputError
from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset
from scorefield.data.inputs import as_they_are

__all__ = ["low_res_images"]


def low_res_images(path: str | Path, side: int, data: DataSpec) -> Dataset:
    """An .npz with `images` and optional `labels`, one picture, or a folder of them (subfolders are classes), N in all.

    The result's `batch` gives them in the range of `data`, the images that they are enlarged to, whose channels they get.
    InputError for images that are not side × side, and for any that cannot be read.
    """
    small = as_they_are(path, data.shape[0])
    if small.spec.shape[1:] != (side, side):
        height, width = small.spec.shape[1:]
        raise InputError(f"{path}: this run enlarges images of {side}×{side} pixels, and these are {width}×{height}")
    return replace(small, spec=replace(small.spec, range=data.range))
