"""Pictures that are decoded when a batch asks for them: data that do not fit in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorefield.data.images.decode import IN_A_ROW, WORKERS, Decoder, threads
from scorefield.data.images.eager import gather
from scorefield.data.images.unreadable import UnreadableLog

__all__ = ["MEMORY", "Files", "Pictures", "decodes_on_demand", "pictures"]

MEMORY = 2 * 2**30  # bytes of decoded pictures from which they are no longer held in memory unless told to be
_PROBED = 64  # pictures that are decoded before training starts, evenly spread


class Files(Protocol):
    """What the pictures are read from. Called from several threads."""

    def __len__(self) -> int: ...

    def name(self, number: int) -> str: ...

    def content(self, number: int) -> Path | bytes | None:
        """A file to read, its bytes, or None where there is no picture."""
        ...

    def digest(self) -> bytes: ...


def decodes_on_demand(told: bool | None, count: int, size: int | None, channels: int | None) -> bool:
    """Whether `count` pictures are decoded on demand: as told, otherwise where they would take more than 2
    GiB decoded.
    """
    if told is not None:
        return told
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

    size None takes the first picture's size, channels None takes 1 where all pictures looked at are grey,
    otherwise 3. InputError where more than half of these cannot be used, or any (with `strict`), or they
    differ in size and none is given.
    """
    numbers = sorted({k * len(files) // _PROBED for k in range(_PROBED)})
    probes = [(files.name(number), files.content(number)) for number in numbers]
    probed = gather(probes, len(probes), source, size=size, channels=channels, upscale=upscale, strict=strict)
    shape = (probed.values.shape[1], probed.values.shape[2], probed.values.shape[3])
    return Pictures(
        files, np.arange(len(files)), labels, Decoder(source, shape, size, channels, upscale, strict)
    )


@dataclass(frozen=True, eq=False)
class Pictures:
    """The levels of pictures, indexed like a tensor uint8 (M, C, H, W) and decoded by a few threads when they
    are.

    A picture that cannot be used is noted in `broken`, and the next usable one of its class stands in for it,
    in the order of `numbers`, so what is at an index depends on the files alone.

    numbers: int64 (M,), which of `files`.   labels: int64 (M,), or None.
    """

    files: Files
    numbers: np.ndarray
    labels: Tensor | None
    decoder: Decoder
    _stands_in: dict[int, int] = field(default_factory=dict)
    dtype: torch.dtype = torch.uint8

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def broken(self) -> UnreadableLog:
        return self.decoder.broken

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.decoder.shape)

    def __getitem__(self, indices: Tensor) -> Tensor:
        """uint8 (B, C, H, W) at `indices` (B,)."""
        values = np.empty((len(indices), *self.decoder.shape), dtype=np.uint8)

        def fill(places: range) -> None:
            for place in places:
                values[place] = self._usable(int(indices[place]))

        each = max(1, len(values) // (2 * WORKERS))
        list(threads().map(fill, [range(k, min(k + each, len(values))) for k in range(0, len(values), each)]))
        return torch.from_numpy(values)

    def subset(self, indices: Tensor) -> Pictures:
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, numbers=self.numbers[indices.numpy()], labels=labels, _stands_in={})

    def digest(self) -> bytes:
        """Of names, classes and sizes, not of pixels: reading all of them would take too long."""
        chosen = self.numbers.astype("<i8").tobytes()
        return (
            self.files.digest()
            + chosen
            + repr((self.decoder.shape, self.decoder.size, self.decoder.upscale)).encode()
        )

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
        raise self.decoder.gone(self.files.name(int(self.numbers[here])))

    def _next(self, index: int) -> list[int]:
        """The following indices of the same class, from the last on to the first."""
        same = (
            np.arange(len(self))
            if self.labels is None
            else np.flatnonzero((self.labels == self.labels[index]).numpy())
        )
        place = int(np.searchsorted(same, index))
        return np.concatenate([same[place + 1 :], same[:place]])[:IN_A_ROW].tolist()

    def _decoded(self, index: int) -> np.ndarray | None:
        number = int(self.numbers[index])
        return self.decoder.usable(self.files.name(number), lambda: self.files.content(number))
