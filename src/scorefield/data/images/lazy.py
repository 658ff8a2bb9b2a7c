"""Images that are decoded when a batch asks for them: data sets larger than memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorefield.data.images.decode import IN_A_ROW, WORKERS, Decoder, threads
from scorefield.data.images.eager import decode_all
from scorefield.data.images.read import WHITE, ImageOptions
from scorefield.data.images.unreadable import UnreadableLog

__all__ = ["MEMORY", "PROBE", "Files", "LazyImages", "decodes_lazily", "lazy_images"]

MEMORY = 2 * 2**30  # bytes of decoded images that are held in memory by default
PROBE = 64  # images that are decoded before training starts, to find their shape


class Files(Protocol):
    """Where encoded images are read from. Called from several threads."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str: ...

    def content(self, number: int) -> Path | bytes | None:
        """A file to read, its bytes, or None where there is no image."""
        ...

    def files(self) -> Iterator[tuple[str, Path | bytes | None]]:
        """(name, content) of each, in their order."""
        ...

    def digest(self) -> bytes: ...


def decodes_lazily(on_demand: bool | None, count: int, options: ImageOptions, memory: int) -> bool:
    """Whether `count` images are decoded when asked for: as `on_demand` says, or, for None, where they would
    take more than `memory` bytes decoded.
    """
    if on_demand is not None:
        return on_demand
    size = options.size
    return size is not None and count * size * size * (options.channels or 3) > memory


def lazy_images(
    files: Files, labels: Tensor | None, source: str, options: ImageOptions, probe: int
) -> tuple[LazyImages, tuple[str, ...]]:
    """All of `files`, to be decoded when asked for, and what is done to the probed ones, in sentences.

    Args:
        files: The encoded images.
        labels: int64 (N,), or None.
        source: What the user named, for messages.
        options: Size, channels, and what to do about small and unreadable images.
        probe: How many images to decode at once, evenly spread: they give the size and the channels where
            `options` has none.

    Raises:
        InputError: As `decode_all` does, for the images that are probed.
    """
    numbers = sorted({k * len(files) // probe for k in range(probe)})
    found = decode_all(
        [(files.name(number), files.content(number)) for number in numbers], len(numbers), source, options
    )
    shape = (found.values.shape[1], found.values.shape[2], found.values.shape[3])
    images = LazyImages(files, np.arange(len(files)), labels, Decoder(source, shape, options))
    return images, tuple(f"as a part of them shows, {note}" for note in found.notes)


@dataclass(frozen=True, eq=False)
class LazyImages:
    """Images indexed like a uint8 tensor (M, C, H, W), and decoded by a few threads when they are.

    An unreadable image is logged and replaced by the next readable one of its class, in the order of
    `numbers`, so what an index gives depends on the files alone.

    Attributes:
        files: The encoded images.
        numbers: int64 (M,), which of `files`.
        labels: int64 (M,), or None.
        decoder: Decodes one of them.
    """

    files: Files
    numbers: np.ndarray
    labels: Tensor | None
    decoder: Decoder
    _replaced: dict[int, int] = field(default_factory=dict)
    dtype: torch.dtype = torch.uint8

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def unreadable(self) -> UnreadableLog:
        """The files that were met so far and could not be used."""
        return self.decoder.unreadable

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.decoder.shape)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """uint8 (B, C, H, W) at `indices` (B,)."""
        values = np.empty((len(indices), *self.decoder.shape), dtype=np.uint8)

        def fill(places: range) -> None:
            for place in places:
                values[place] = self._image(int(indices[place]))

        each = max(1, len(values) // (2 * WORKERS))
        list(threads().map(fill, [range(k, min(k + each, len(values))) for k in range(0, len(values), each)]))
        return torch.from_numpy(values)

    def subset(self, indices: Tensor) -> LazyImages:
        """The images at `indices` (M,), in that order."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, numbers=self.numbers[indices.numpy()], labels=labels, _replaced={})

    def digest(self) -> bytes:
        """Of names, classes and sizes, not of pixels: reading all of them would take too long."""
        chosen = self.numbers.astype("<i8").tobytes()
        options = self.decoder.options
        deep = () if options.white == WHITE else (options.white,)
        shape = repr((self.decoder.shape, options.size, options.upscale, *deep)).encode()
        return self.files.digest() + chosen + shape

    def _image(self, index: int) -> np.ndarray:
        """The image at this index, or the one that replaces it: uint8 (C, H, W)."""
        here = self._replaced.get(index, index)
        found = self._decoded(here)
        if found is not None:
            return found
        for there in self._next(here):
            found = self._decoded(there)
            if found is not None:
                self._replaced[index] = there
                return found
        raise self.decoder.no_replacement(self.files.name(int(self.numbers[here])))

    def _next(self, index: int) -> list[int]:
        """The following indices of the same class; after the last one comes the first."""
        same = (
            np.arange(len(self))
            if self.labels is None
            else np.flatnonzero((self.labels == self.labels[index]).numpy())
        )
        place = int(np.searchsorted(same, index))
        return np.concatenate([same[place + 1 :], same[:place]])[:IN_A_ROW].tolist()

    def _decoded(self, index: int) -> np.ndarray | None:
        number = int(self.numbers[index])
        return self.decoder.decode(self.files.name(number), lambda: self.files.content(number))
