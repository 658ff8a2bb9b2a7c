"""Folders of images; subfolders are classes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch

from scorefield.data.dataset import Dataset
from scorefield.data.images.layout import arrange
from scorefield.data.images.lazy import MEMORY, PROBE
from scorefield.data.images.own_size import USUAL, sizes_of, usable_side
from scorefield.data.images.read import WHITE, ImageOptions
from scorefield.data.images.scan import text
from scorefield.data.sources.image_files import dataset_of
from scorefield.data.sources.opener import Opener, SourceOptions
from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import as_path

__all__ = ["folder"]


def folder(
    path: str | Path,
    size: int | None = 32,
    channels: int = 3,
    upscale: bool = False,
    strict: bool = False,
    on_demand: bool | None = False,
    *,
    memory: int = MEMORY,
    probe: int = PROBE,
    white: int = WHITE,
) -> Dataset:
    """The images of a folder, in the order of their sorted paths, as a data set of 256 bins.

    Subfolders that hold images, at any depth, are the classes, named and sorted by folder; without any the
    data are unlabelled. Splits, shards and a dataset.json are read as `images.layout.arrange` says. Every
    mode is read: 16-bit images are scaled, transparency is composited over white,
    EXIF orientation is applied, and of animations the first frame is read. Hidden files are ignored; symbolic
    links are followed and have names of their own. Unreadable files are skipped and named in `skipped`; of
    images that are decoded on demand they are found when their turn comes, and replaced by the next one of
    the class.

    Args:
        path: The folder.
        size: Side in pixels. Larger images are reduced to it on the shorter side and cropped at the centre.
            None: unchanged, and then all images must have one size.
        channels: 1 (grey) or 3 (RGB).
        upscale: Enlarge images that are smaller than `size`, which is an error otherwise.
        strict: An unreadable image is an error.
        on_demand: Decode images when a batch asks for them instead of holding all in memory. None: where they
            would take more than `memory`.
        memory: Bytes of decoded images.
        probe: How many images to decode at once, evenly spread, where the others are decoded on demand.
        white: The value of white in 16-bit images, which becomes 255: 4,095 where 12 bits are used.

    Raises:
        InputError: If there is no such folder, it holds no images, or images both beside and inside
            subfolders;
            if images are smaller than `size`; if more than half are unreadable, or all of one class.
    """
    folder_path, source = as_path(path, "a folder of images"), text(str(path))
    options = ImageOptions(size, channels, upscale, strict, white)
    positive_int("probe", probe)
    listing, notes = arrange(folder_path, source)
    labels, classes = None if listing.labels is None else torch.from_numpy(listing.labels), listing.classes
    made = dataset_of(
        listing, labels, classes, source, options, notes, on_demand=on_demand, memory=memory, probe=probe
    )
    lost = [name for name, count in zip(classes, made.counts, strict=True) if not count]
    if lost:
        raise InputError(
            f"{source}: no image of class {lost[0]!r} can be read: repair them or remove the subfolder"
        )
    return replace(made, read_as=_read_as(made, str(path), options))


def _read_as(data: Dataset, path: str, options: ImageOptions) -> dict[str, object]:
    """What `Dataset.read_as` says; nothing of images that are not square, to whose size no recipe can resize."""
    channels, height, width = data.spec.shape
    if height != width:
        return {}
    source = path if os.sep in path else f"./{path}"  # "digits" alone names other data
    how = {"upscale": options.upscale, "strict": options.strict, "white": int(options.white)}
    return {"source": source, "size": width, "channels": channels, **how, "stream": not data.in_memory}


class _Folder(Opener):
    def own_side(self, name: str, options: SourceOptions) -> int:
        listing, _ = arrange(as_path(name, "a folder of images"), text(name))
        return usable_side(sizes_of(listing))

    def knows_size(self, options: SourceOptions) -> bool:
        return options.size != "auto"

    def open(self, name: str, options: SourceOptions) -> Dataset:
        size, channels = options.side or USUAL, options.channels or 3
        return folder(
            name, size, channels, options.upscale, options.strict, options.stream, white=options.white
        )


SOURCE = _Folder()
