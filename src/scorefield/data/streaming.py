"""Pictures that are decoded when a batch asks for them: data that do not fit in memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.data.broken import Broken
from scorefield.data.gather import gather, reason_of
from scorefield.data.images import TooSmall, convert, fit, read_image

__all__ = ["MEMORY", "Files", "Pictures", "pictures", "streams"]

MEMORY = 2 * 2**30  # bytes of decoded pictures from which they are no longer held in memory unless told to be
_PROBED = 64  # pictures that are decoded before training starts, evenly spread
_WORKERS = min(16, (os.cpu_count() or 1) + 2)
_IN_A_ROW = 100  # pictures that may be broken one after another; a disk that has gone is more than that


class Files(Protocol):
    """What the pictures are read from. Called from several threads."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str: ...

    def content(self, number: int) -> Path | bytes | None:
        """A file to read, its bytes, or None where there is no picture."""
        ...

    def digest(self) -> bytes: ...


def streams(stream: bool | None, count: int, size: int | None, channels: int | None) -> bool:
    """Whether `count` pictures are decoded on demand: as told, otherwise where they would take more than 2 GiB decoded."""
    if stream is not None:
        return stream
    return size is not None and count * size * size * (channels or 3) > MEMORY


def pictures(
    files: Files,
    labels: Tensor | None,
    source: str,
    *,
    size: int | None,
    channels: int | None,
    upscale: bool,
    strict: bool,
) -> Pictures:
    """All of `files`, after a look at 64 of them, evenly spread.

    size None takes the first picture's size, channels None takes 1 where all pictures looked at are grey, otherwise 3. InputError
    where more than half of these cannot be used, or any (with `strict`), or they differ in size and none is given.
    """
    numbers = sorted({k * len(files) // _PROBED for k in range(_PROBED)})
    probes = [(files.name(number), files.content(number)) for number in numbers]
    probed = gather(probes, len(probes), source, size=size, channels=channels, upscale=upscale, strict=strict)
    shape = (probed.levels.shape[1], probed.levels.shape[2], probed.levels.shape[3])
    return Pictures(files, np.arange(len(files)), labels, source, shape, size, channels, upscale, strict)


@dataclass(frozen=True, eq=False)
class Pictures:
    """The levels of pictures, indexed like a tensor uint8 (M, C, H, W) and decoded by a few threads when they are.

    A picture that cannot be used is noted in `broken`, and the next usable one of its class stands in for it, in the order of
    `numbers`, so what is at an index depends on the files alone.

    numbers: int64 (M,), which of `files`.   labels: int64 (M,), or None.   size, channels, upscale: as for
    `pictures`.   strict: an unusable picture is an InputError.
    """

    files: Files
    numbers: np.ndarray
    labels: Tensor | None
    source: str
    shape_of_one: tuple[int, int, int]
    size: int | None
    channels: int | None
    upscale: bool
    strict: bool
    broken: Broken = field(default_factory=Broken)
    _stands_in: dict[int, int] = field(default_factory=dict)
    dtype: torch.dtype = torch.uint8

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.shape_of_one)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """uint8 (B, C, H, W) at `indices` (B,)."""
        levels = np.empty((len(indices), *self.shape_of_one), dtype=np.uint8)

        def fill(places: range) -> None:
            for place in places:
                levels[place] = self._usable(int(indices[place]))

        each = max(1, len(levels) // (2 * _WORKERS))
        list(_threads().map(fill, [range(k, min(k + each, len(levels))) for k in range(0, len(levels), each)]))
        return torch.from_numpy(levels)

    def subset(self, indices: Tensor) -> Pictures:
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, numbers=self.numbers[indices.numpy()], labels=labels, _stands_in={})

    def digest(self) -> bytes:
        """Of names, classes and sizes, not of pixels: reading all of them would take too long."""
        chosen = self.numbers.astype("<i8").tobytes()
        return self.files.digest() + chosen + repr((self.shape_of_one, self.size, self.upscale)).encode()

    def _usable(self, index: int) -> np.ndarray:
        """The picture at this index, or the one that stands in for it: uint8 (C, H, W)."""
        here = self._stands_in.get(index, index)
        found = self._decoded(here)
        if found is not None:
            return found
        for there in self._next(here):
            found = self._decoded(there)
            if found is not None:
                self._stands_in[index] = there
                return found
        raise InputError(
            f"{self.source}: {self.files.name(int(self.numbers[here]))} cannot be read, and neither can the pictures that could stand "
            f"in for it: is the disk still there? {self.broken.names.get(self.files.name(int(self.numbers[here])), '')}"
        )

    def _next(self, index: int) -> list[int]:
        """The following indices of the same class, from the last on to the first."""
        same = np.arange(len(self)) if self.labels is None else np.flatnonzero((self.labels == self.labels[index]).numpy())
        place = int(np.searchsorted(same, index))
        return np.concatenate([same[place + 1 :], same[:place]])[:_IN_A_ROW].tolist()

    def _decoded(self, index: int) -> np.ndarray | None:
        """uint8 (C, H, W), or None for a picture that cannot be used."""
        number = int(self.numbers[index])
        try:
            return self._decode(number)
        except InputError as fault:
            if not isinstance(fault, TooSmall):
                raise
            reason = f"{fault} is smaller than {self.size}×{self.size}"
        except Exception as fault:  # decoders raise nearly every type on damaged input; all of it is reported
            reason = reason_of(fault)
        name = self.files.name(number)
        if self.strict:
            raise InputError(
                f"{self.source}: {name} cannot be used ({reason}): repair or remove it, or leave strict out to do without it"
            )
        self.broken.add(name, reason)
        return None

    def _decode(self, number: int) -> np.ndarray:
        content = self.files.content(number)
        if content is None:
            raise ValueError("no picture")
        channels, height, width = self.shape_of_one
        image = convert(fit(read_image(content), self.size, self.upscale), self.channels)
        if image.size != (width, height):
            raise ValueError(f"{image.width}×{image.height} pixels, and the others have {width}×{height}")
        array = np.asarray(image)
        if array.ndim == 3 and channels == 1:
            raise InputError(
                f"{self.source}: {self.files.name(number)} is in colour, and the pictures looked at first are grey: say how many "
                f"channels are wanted (channels = 1 or 3)"
            )
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@cache
def _threads() -> ThreadPoolExecutor:
    """Pillow decodes without Python's lock, and waiting for a disk needs no processor: a few threads are enough."""
    return ThreadPoolExecutor(max_workers=_WORKERS, thread_name_prefix="decode")
