"""Examples that pass by once an epoch and are never all at hand: archives that are read over the network, or
that fill a disk.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.data.arrays import check_name
from scorefield.data.base import Share
from scorefield.data.dataset import Dataset
from scorefield.data.images.decode import IN_A_ROW, Decoder, threads
from scorefield.data.images.lazy import MEMORY
from scorefield.data.images.unreadable import UnreadableLog
from scorefield.data.loading.epoch_order import positions
from scorefield.runtime.errors import InputError

__all__ = ["BUFFER", "Row", "Rows", "Stream", "StreamOrder"]

BUFFER = 10_000  # encoded pictures among which a row's place in the order is drawn
_FIRST = 10_000  # examples that stand for all where all would be wanted, as far as 2 GiB hold them


class Row(NamedTuple):
    """One example as it lies in an archive. content: the bytes of a picture, None where there is none; label:
    −1 for none.

    Names need not differ. As text a row is its name and a hash of its content.
    """

    name: str
    content: bytes | None
    label: int

    def __str__(self) -> str:
        return f"{self.name} ({hashlib.sha256(self.content or b'').hexdigest()[:8]})"

    def share(self, seed: int) -> float:
        """In [0, 1), uniform over contents: what decides whether it is held out, wherever it lies."""
        key = seed.to_bytes(8, "little")
        return (
            int.from_bytes(
                hashlib.blake2b(self.content or self.name.encode(), digest_size=8, key=key).digest()
            )
            / 2**64
        )


class Rows(Protocol):
    """What a stream is read from."""

    def first(self, count: int) -> list[Row]:
        """Always the same ones."""
        ...

    def shuffled(self, seed: int) -> Iterator[Row]:
        """All rows once, in an order that depends on the seed alone."""
        ...

    def digest(self) -> bytes:
        """What the order is a function of, beside the seed: how many archives there are, and how their rows
        are shuffled.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Of the libraries that shuffle."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Stream:
    """Examples in the order of a seed, without their number and without a way back. What `sf.train` reads
    like a `Dataset`.

    labelled: every row has a label, an index into spec.classes.   holdout: the share of rows that is left
    out; a row is held out by its content and split_seed, so the same pictures are held out in any order and
    on any number of shards.
    """

    spec: DataSpec
    rows: Rows
    decoder: Decoder
    labelled: bool
    source: str
    holdout: float = 0.0
    split_seed: int = 0

    def __repr__(self) -> str:
        classes = f", {self.spec.num_classes} classes" if self.labelled else ""
        return f"Stream({self.source!r}, examples of {tuple(self.spec.shape)}{classes})"

    @property
    def examples(self) -> None:
        """A stream is not counted."""

    @property
    def in_memory(self) -> bool:
        return False

    @property
    def array_names(self) -> tuple[str, ...]:
        return ()

    @property
    def skipped(self) -> tuple[str, ...]:
        """No file is left out before training."""
        return ()

    @property
    def broken(self) -> UnreadableLog:
        return self.decoder.broken

    def without(self, fraction: float, seed: int) -> Stream:
        """The stream without the held-out share of its rows."""
        if not 0 <= fraction < 1:
            raise InputError(f"the held-out fraction must be at least 0 and below 1, got {fraction}")
        return replace(self, holdout=fraction, split_seed=seed)

    def order(self, batch_size: int, seed: int) -> StreamOrder:
        return StreamOrder(self, batch_size, seed)

    def epoch(self, seed: int) -> Iterator[Row]:
        """The rows that are not held out, in the order of this seed."""
        return (row for row in self._shuffled(seed) if not self._held_out(row))

    def first_examples(self, count: int = _FIRST) -> tuple[Dataset, Dataset]:
        """(training, held-out) examples among the first ones in the order of split_seed: `count`, or as many
        as 2 GiB hold.
        """
        count = min(count, max(1, MEMORY // int(np.prod(self.spec.shape))))
        rows = list(islice(self._shuffled(self.split_seed), count))
        parts = [row for row in rows if not self._held_out(row)], [row for row in rows if self._held_out(row)]
        train, heldout = (self._dataset(part) for part in parts)
        return train, heldout

    def some(self, count: int) -> tuple[Tensor, Tensor | None]:
        """(x0, y) of `count` training examples at the most, always the same ones: of the first rows as they
        lie.
        """
        rows = [self.checked(row) for row in self.rows.first(2 * count)]
        return self._dataset([row for row in rows if not self._held_out(row)][:count]).some(count)

    @property
    def versions(self) -> dict[str, str]:
        """Of what the order depends on beside the seed."""
        return self.rows.versions()

    def fingerprint(self, arrays: Iterable[str] = ()) -> str:
        """16 hexadecimal digits of SHA-256 over the first 64 rows, how rows are shuffled and decoded, and
        what is held out.
        """
        for name in arrays:
            check_name(name, self.array_names, self.source)
        how = (
            self.decoder.shape,
            self.decoder.size,
            self.decoder.upscale,
            self.spec.classes,
            self.holdout,
            self.split_seed,
        )
        digest = hashlib.sha256(repr(how).encode() + self.rows.digest())
        for row in self.rows.first(64):  # not their names, which may begin with the folder that they lie in
            digest.update(repr(row.label).encode() + hashlib.sha256(row.content or b"").digest())
        return digest.hexdigest()[:16]

    def checked(self, row: Row) -> Row:
        """This row. InputError for a label that is none of the classes."""
        if self.labelled and not 0 <= row.label < self.spec.num_classes:
            raise InputError(
                f"{self.source}: {row} has the label {row.label}, and the classes are 0 … {self.spec.num_classes - 1}"
            )
        return row

    def decoded(self, row: Row) -> np.ndarray | None:
        """uint8 (C, H, W), or None where the row cannot be used."""
        return self.decoder.usable(row, lambda: row.content)

    def _held_out(self, row: Row) -> bool:
        return row.share(self.split_seed) < self.holdout

    def _shuffled(self, seed: int) -> Iterator[Row]:
        return map(self.checked, self.rows.shuffled(seed))

    def _dataset(self, rows: list[Row]) -> Dataset:
        images = list(threads().map(self.decoded, rows))
        usable = [(image, row.label) for image, row in zip(images, rows, strict=True) if image is not None]
        values = (
            np.stack([image for image, _ in usable])
            if usable
            else np.empty((0, *self.decoder.shape), dtype=np.uint8)
        )
        labels = torch.tensor([label for _, label in usable], dtype=torch.int64) if self.labelled else None
        return Dataset(
            self.spec,
            torch.from_numpy(values),
            labels,
            self.source,
            tuple(self.broken.names),
            self.fingerprint(),
        )


class StreamOrder:
    """The batches of a stream, one after another. Position p = step·batch_size + i is row p of an endless row
    of epochs.

    Epoch e is the stream shuffled with a seed made of (seed, e); a row that cannot be used is replaced by the
    next usable one. What a step gets is therefore a function of (stream, batch_size, seed, step); a step out
    of turn passes over the rows before it.
    epoch_length: 0 while it is not known; whoever knows it from before may say so, and spares a read of the
    first epoch.
    """

    def __init__(self, stream: Stream, batch_size: int, seed: int) -> None:
        self.data, self.batch_size, self.seed = stream, batch_size, seed
        self.epoch_length = 0
        self._start = -1  # the position of the first row in the window
        self._window: deque[Row] = deque()
        self._rows: Iterator[Row] = iter(())
        self._epoch = self._read = 0  # how many rows of this epoch were read

    def take(self, step: int, rank: int = 0, world: int = 1) -> Share:
        """This process's share of the batch of `step`."""
        try:
            return self._take(step, positions(self.batch_size, step, rank, world))
        except BaseException:
            self._start = -1  # what failed has left its place in the stream: the next step finds it anew
            self._window.clear()
            raise

    def _take(self, step: int, places: Tensor) -> Share:
        if self._start != step * self.batch_size:
            self._go_to(step * self.batch_size)
        rows = [self._row(place) for place in places.tolist()]
        found = [*zip(threads().map(self.data.decoded, rows), rows, strict=True)]
        shown = [
            self._stand_in(place, row) if image is None else (image, row)
            for place, (image, row) in zip(places.tolist(), found)
        ]
        self._pass_batch()
        labels = torch.tensor([row.label for _, row in shown]) if self.data.labelled else None
        return Share(torch.from_numpy(np.stack([image for image, _ in shown])), labels, places, {})

    def _stand_in(self, place: int, row: Row) -> tuple[np.ndarray, Row]:
        """The first usable one of the rows after this place in the window."""
        for later in range(place + 1, place + 1 + IN_A_ROW):
            image = self.data.decoded(other := self._row(later))
            if image is not None:
                return image, other
        raise self.data.decoder.gone(row)

    def _row(self, place: int) -> Row:
        """The row at this place in the window, which grows up to there."""
        while len(self._window) <= place:
            self._window.append(self._next())
        return self._window[place]

    def _pass_batch(self) -> None:
        self._row(self.batch_size - 1)
        for _ in range(self.batch_size):
            self._window.popleft()
        self._start += self.batch_size

    def _next(self) -> Row:
        """The row after the last one that was read."""
        while (row := next(self._rows, None)) is None:
            self._end_epoch()
            self._open(self._epoch + 1)
        self._read += 1
        return row

    def _end_epoch(self) -> None:
        if not self._read:
            raise InputError(
                f"{self.data.source}: nothing is left to train on: lower the held-out fraction, or add data"
            )
        self.epoch_length = self._read

    def _open(self, epoch: int) -> None:
        (seed,) = np.random.Philox(key=np.array([self.seed, epoch], dtype=np.uint64)).random_raw(1)
        self._rows, self._epoch, self._read = self.data.epoch(int(seed)), epoch, 0

    def _go_to(self, position: int) -> None:
        """Empty the window and start it at a position. How long epochs are is found out where it is not
        known.
        """
        self._window.clear()
        self._start = position
        epoch, offset = divmod(position, self.epoch_length) if self.epoch_length else (0, position)
        self._open(epoch)
        while self._read < offset:
            if next(self._rows, None) is None:
                self._end_epoch()
                self._go_to(position)
                return
            self._read += 1
