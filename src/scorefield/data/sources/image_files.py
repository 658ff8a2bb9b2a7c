"""A data set of image files: all of them decoded at once, or each when a batch asks for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset
from scorefield.data.images.eager import decode_all
from scorefield.data.images.lazy import Files, decodes_lazily, lazy_images
from scorefield.data.images.read import ImageOptions
from scorefield.runtime.checks import positive_int

__all__ = ["dataset_of"]


def dataset_of(
    files: Files,
    labels: Tensor | None,
    classes: tuple[str, ...],
    source: str,
    options: ImageOptions,
    notes: Sequence[str] = (),
    *,
    on_demand: bool | None,
    memory: int,
    probe: int,
) -> Dataset:
    """The images of files as a data set of 256 bins.

    Args:
        files: The encoded images, N of them.
        labels: int64 (N,), indices into `classes`, or None.
        classes: Names of the classes.
        source: What the user named, for messages.
        options: Size, channels, and what to do about small and unreadable images.
        notes: What is to be known of how the files were found, in sentences.
        on_demand: Whether images are decoded when a batch asks for them. None: where they would take more than `memory`.
        memory: Bytes of decoded images.
        probe: How many images are decoded at once, evenly spread, where the others are decoded on demand.

    Returns:
        Without the files that cannot be read, which `skipped` names; of images that are decoded on demand they are found
        when their turn comes.

    Raises:
        InputError: As `decode_all` does, for all images or for those that are probed.
    """
    positive_int("memory, bytes of decoded images,", memory, at_least=0)
    if decodes_lazily(on_demand, len(files), options, memory):
        values, seen = lazy_images(files, labels, source, options, probe)
        spec = DataSpec(values.shape[1:], classes=classes, bins=256)
        return Dataset(spec, values, labels, source, notes=(*notes, *seen))
    found = decode_all(files.files(), len(files), source, options)
    return Dataset(
        DataSpec(found.values.shape[1:], classes=classes, bins=256),
        torch.from_numpy(found.values),
        None if labels is None else labels[torch.from_numpy(found.kept)],
        source,
        found.skipped,
        reasons=found.reasons,
        notes=(*notes, *found.notes),
    )
