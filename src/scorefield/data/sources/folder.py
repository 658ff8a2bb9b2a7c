"""Folders of pictures; subfolders are classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset
from scorefield.data.images.eager import gather
from scorefield.data.images.lazy import decodes_on_demand, pictures
from scorefield.data.images.read import check_options
from scorefield.data.images.scan import list_pictures, text
from scorefield.runtime.errors import InputError

__all__ = ["folder"]


def folder(
    path: str | Path,
    size: int | None = 32,
    channels: int = 3,
    upscale: bool = False,
    strict: bool = False,
    on_demand: bool | None = False,
) -> Dataset:
    """A folder of pictures -> levels uint8 (N, channels, size, size), 256 bins, in the order of their sorted
    paths.

    Subfolders that hold pictures (at any depth) are the classes, named and sorted by folder; without any the
    data are unlabelled. Any mode is read: 16-bit is scaled, transparency laid over white, EXIF orientation
    applied, of animations the first frame. Larger pictures are reduced to `size` on the shorter side and
    cropped centrally; with None they keep their size, which must be one. Hidden files are ignored and
    symbolic links followed, their own names counting. Unreadable files are skipped and named in `skipped`.

    on_demand: decode pictures when a batch asks for them instead of holding all; None where they would take
    more than 2 GiB. An unusable file is then found when its turn comes: the next one of its class stands in
    for it.

    InputError: no such folder, no pictures, pictures both beside and inside subfolders, any smaller than
    `size` (unless `upscale` enlarges them), any unreadable (with `strict`; otherwise if more than half are,
    or all of one class).
    """
    source = text(str(path))
    check_options(size, channels)
    listing = list_pictures(Path(os.path.expanduser(path)), source)
    options: dict[str, Any] = {"size": size, "channels": channels, "upscale": upscale, "strict": strict}
    labels, classes = None if listing.labels is None else torch.from_numpy(listing.labels), listing.classes
    if decodes_on_demand(on_demand, len(listing), size, channels):
        values = pictures(listing, labels, source, **options)
        return Dataset(DataSpec(values.shape[1:], classes=classes, bins=256), values, labels, source)
    found = gather(listing.files(), len(listing), source, **options)
    spec = DataSpec(shape=found.values.shape[1:], classes=classes, bins=256)
    if labels is not None:
        labels = labels[torch.from_numpy(found.kept)]
        lost = sorted(set(range(len(classes))) - set(labels.tolist()))
        if lost:
            raise InputError(
                f"{source}: no picture of class {classes[lost[0]]!r} can be read: repair them or remove the subfolder"
            )
    return Dataset(spec, torch.from_numpy(found.values), labels, source, found.skipped)
