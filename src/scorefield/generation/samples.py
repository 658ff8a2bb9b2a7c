"""Samples in memory: uint8 images or points, with their labels, as an .npz of `scorefield sample` holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec, are_images
from scorefield.runtime.checks import brief, instance_of, is_list, positive_int
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import as_path
from scorefield.store.block_store import Block, finite
from scorefield.store.file_store import write_samples
from scorefield.store.outputs import is_folder_name
from scorefield.store.writers import channels_last, check_target, save_images, save_points

__all__ = ["Samples"]


class Samples:
    """Samples of a run, on the CPU.

    `len(samples)` is their number; `images` of runs of images, `samples` of all others.

    Args:
        values: (N, *), uint8 of images, otherwise float32 in the model's data units.
        spec: What one sample is.
        labels: The class of each sample, or None.

    Raises:
        InputError: For values of another shape or type, and unless there is one label for each sample.
    """

    def __init__(
        self,
        values: Tensor,
        spec: DataSpec,
        labels: Sequence[int] | None = None,
    ) -> None:
        self.spec = instance_of("spec", spec, DataSpec, "a DataSpec")
        instance_of("values", values, Tensor, "a tensor (N, *)")
        kinds = (torch.uint8,) if are_images(spec.shape) else (torch.float32, torch.float64)
        if tuple(values.shape[1:]) != spec.shape or values.dtype not in kinds or values.device.type != "cpu":
            raise InputError(
                f"values must be {str(kinds[0]).removeprefix('torch.')} of shape (N, {', '.join(map(str, spec.shape))}) on the CPU; "
                f"got {values.dtype} of shape {tuple(values.shape)} on {values.device}"
            )
        if labels is not None:
            self._check_labels(labels, len(values))
        self._values, self._labels = values, labels

    @staticmethod
    def _check_labels(labels: Sequence[int], count: int) -> None:
        if not is_list(labels) or len(labels) != count:
            raise InputError(
                f"labels must be a list of {count:,} integers, one for each sample; got {brief(labels)}"
            )
        for label in labels:
            positive_int("a label", label, at_least=0)

    @classmethod
    def of(cls, blocks: Iterable[Block], spec: DataSpec) -> Samples:
        """The samples of consecutive blocks.

        Args:
            blocks: In their order; each is let go once it is read.
            spec: What one sample is.

        Raises:
            InputError: For samples that hold NaN or infinite values.
        """
        images = are_images(spec.shape)
        parts: list[Tensor] = []
        chosen: list[int] = []
        for block in blocks:
            parts.append((spec.to_uint8(block.x) if images else finite(block.x)).cpu())
            chosen += block.labels or []
        return cls(torch.cat(parts), spec, chosen or None)

    @property
    def images(self) -> np.ndarray:
        """uint8 (N, H, W, C), or (N, H, W) of grey images.

        Raises:
            InputError: Where samples are no images.
        """
        if not are_images(self.spec.shape):
            raise InputError(f"these samples have shape {self.spec.shape} and are not images: use .samples")
        return channels_last(self._values)

    @property
    def samples(self) -> np.ndarray:
        """float32 (N, *) in the model's data units.

        Raises:
            InputError: Where samples are images.
        """
        if are_images(self.spec.shape):
            raise InputError("these samples are images, kept as bytes: use .images")
        return self._values.numpy()

    @property
    def labels(self) -> np.ndarray | None:
        """int64 (N,); None without classes."""
        return None if self._labels is None else np.asarray(self._labels, dtype=np.int64)

    @property
    def classes(self) -> np.ndarray | None:
        """The class of each sample by its name, text (N,); None without classes."""
        if self._labels is None:
            return None
        names = self.spec.classes
        return np.array([names[label] if label < len(names) else str(label) for label in self._labels])

    def save(self, path: str | Path) -> None:
        """Write the samples.

        Args:
            path: An .npz (arrays), a .png of images in a grid, or a new or empty folder (a .png or .npy
                each).

        Raises:
            InputError: Where that is not possible.
        """
        target = as_path(path, "samples")
        check_target(target, self.spec.shape)
        self.write(target)

    def write(self, target: Path) -> None:
        """As `save`, in the place of whatever file is there.

        Args:
            target: As of `save`.
        """
        if is_folder_name(target):
            write_samples(target, self._values, self.spec)
        elif are_images(self.spec.shape):
            save_images(target, self._values, self._labels, classes=self.spec.classes)
        else:
            save_points(target, self._values, self._labels, self.spec.classes)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        name, array = ("images", self.images) if are_images(self.spec.shape) else ("samples", self.samples)
        count = 0 if self._labels is None else len(set(self._labels))
        classes = "" if not count else f", {count} class" if count == 1 else f", {count} classes"
        return f"Samples({name} {array.dtype} {array.shape}{classes})"
