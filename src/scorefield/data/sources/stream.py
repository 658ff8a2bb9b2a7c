"""Streams: examples that are read forwards once per epoch, such as archives on the hub."""

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
from scorefield.data.base import Microbatch, Share
from scorefield.data.dataset import Dataset
from scorefield.data.images.decode import IN_A_ROW, Decoder, threads
from scorefield.data.images.lazy import MEMORY
from scorefield.data.images.unreadable import UnreadableLog
from scorefield.data.loading.epoch_order import positions
from scorefield.data.summary import examples_in_words
from scorefield.runtime.errors import InputError

__all__ = ["BUFFER", "Row", "Rows", "Stream", "StreamOrder"]

BUFFER = 10_000  # encoded images that a stream is shuffled within
FIRST = 10_000  # examples that represent a stream where a data set is needed, if they fit in MEMORY


class Row(NamedTuple):
    """One example of an archive.

    Attributes:
        name: Names need not differ; as text a row is its name and a hash of its content.
        content: The bytes of an image, or None where there is none.
        label: −1 for none.
    """

    name: str
    content: bytes | None
    label: int

    def __str__(self) -> str:
        return f"{self.name} ({hashlib.sha256(self.content or b'').hexdigest()[:8]})"

    def share(self, seed: int) -> float:
        """In [0, 1), uniform over contents: decides whether the row is held out, wherever it is stored."""
        key = seed.to_bytes(8, "little")
        return (
            int.from_bytes(
                hashlib.blake2b(self.content or self.name.encode(), digest_size=8, key=key).digest()
            )
            / 2**64
        )


class Rows(Protocol):
    """Where a stream is read from."""

    def first(self, count: int) -> list[Row]:
        """The first `count` rows, always the same."""
        ...

    def shuffled(self, seed: int) -> Iterator[Row]:
        """All rows once, in an order that depends on the seed alone."""
        ...

    def digest(self) -> bytes:
        """What the order depends on beside the seed: the number of archives, and the size of the buffer."""
        ...

    def versions(self) -> dict[str, str]:
        """Versions of the packages that shuffle."""
        ...


@dataclass(frozen=True, eq=False, repr=False)
class Stream:
    """Examples in the order of a seed, without their number and without random access. `sf.train` reads it
    like a `Dataset`.

    Attributes:
        spec: What one example is.
        rows: Where rows are read from.
        decoder: Decodes their images.
        labelled: Whether every row has a label, an index into spec.classes.
        source: What the user named.
        holdout: Share of rows that is held out. A row is held out by its content and split_seed, so the same
            images are held out in any order and with any number of shards.
        split_seed: Seed of that choice.
        notes: What is to be known of how the data are read, in sentences.
    """

    spec: DataSpec
    rows: Rows
    decoder: Decoder
    labelled: bool
    source: str
    holdout: float = 0.0
    split_seed: int = 0
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        classes = f", {self.spec.num_classes} classes" if self.labelled else ""
        return f"Stream({self.source!r}, examples of {tuple(self.spec.shape)}{classes})"

    @property
    def examples(self) -> None:
        """A stream is not counted."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Classes of a stream are not counted."""
        return ()

    @property
    def in_memory(self) -> bool:
        """False: reading can fail, and takes a thread of its own."""
        return False

    @property
    def array_names(self) -> tuple[str, ...]:
        """Nothing: a stream has no further arrays."""
        return ()

    @property
    def skipped(self) -> tuple[str, ...]:
        """No file is left out before training."""
        return ()

    @property
    def unreadable(self) -> UnreadableLog:
        """The rows that were met so far and could not be used."""
        return self.decoder.unreadable

    @property
    def reading(self) -> tuple[str, ...]:
        """What was read, in sentences."""
        return (examples_in_words(self.spec, None, labelled=self.labelled), *self.notes)

    def without(self, fraction: float, seed: int) -> Stream:
        """The stream without a share of its rows, which is held out.

        Args:
            fraction: The share, in [0, 1).
            seed: Of the choice of rows.
        """
        if not 0 <= fraction < 1:
            raise InputError(f"the held-out fraction must be at least 0 and below 1, got {fraction}")
        return replace(self, holdout=fraction, split_seed=seed)

    def order(self, batch_size: int, seed: int) -> StreamOrder:
        """The batches of training.

        Args:
            batch_size: Examples of a step, over all processes.
            seed: Of the order.
        """
        return StreamOrder(self, batch_size, seed)

    def epoch(self, seed: int) -> Iterator[Row]:
        """The rows that are not held out, in the order of this seed.

        Args:
            seed: Of the shuffle.
        """
        return (row for row in self._shuffled(seed) if not self._held_out(row))

    def first_examples(self, count: int = FIRST, memory: int = MEMORY) -> tuple[Dataset, Dataset]:
        """(training, held-out) examples among the first ones in the order of split_seed.

        Args:
            count: How many rows to read.
            memory: Bytes of decoded images that they may take; fewer rows are read where they would take
                more.
        """
        count = min(count, max(1, memory // int(np.prod(self.spec.shape))))
        rows = list(islice(self._shuffled(self.split_seed), count))
        parts = [row for row in rows if not self._held_out(row)], [row for row in rows if self._held_out(row)]
        train, heldout = (self._dataset(part) for part in parts)
        return train, heldout

    def some(self, count: int) -> Microbatch:
        """Training examples, always the same: of the first rows, unshuffled.

        Args:
            count: How many at most.
        """
        rows = [self.checked(row) for row in self.rows.first(2 * count)]
        return self._dataset([row for row in rows if not self._held_out(row)][:count]).some(count)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that the order depends on beside the seed."""
        return self.rows.versions()

    def fingerprint(self, arrays: Iterable[str] = ()) -> str:
        """16 hexadecimal digits of SHA-256 over the first 64 rows, how rows are shuffled and decoded, and
        what is held out.

        Args:
            arrays: Names of further arrays, which a stream does not have.

        Raises:
            InputError: For the name of an array.
        """
        for name in arrays:
            check_name(name, self.array_names, self.source)
        how = (
            self.decoder.shape,
            self.decoder.options.size,
            self.decoder.options.upscale,
            self.spec.classes,
            self.holdout,
            self.split_seed,
        )
        digest = hashlib.sha256(repr(how).encode() + self.rows.digest())
        for row in self.rows.first(64):  # not their names, which may contain the path of their folder
            digest.update(repr(row.label).encode() + hashlib.sha256(row.content or b"").digest())
        return digest.hexdigest()[:16]

    def checked(self, row: Row) -> Row:
        """This row.

        Args:
            row: A row of the stream.

        Raises:
            InputError: For a label that is not one of the classes.
        """
        if self.labelled and not 0 <= row.label < self.spec.num_classes:
            raise InputError(
                f"{self.source}: {row} has the label {row.label}, and the classes are 0 … "
                f"{self.spec.num_classes - 1}"
            )
        return row

    def decoded(self, row: Row) -> np.ndarray | None:
        """uint8 (C, H, W), or None where the row cannot be used.

        Args:
            row: A row of the stream.
        """
        return self.decoder.decode(row, lambda: row.content)

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
            tuple(self.unreadable.names),
            self.fingerprint(),
        )


class StreamOrder:
    """The batches of a stream, one after another.

    Position p = step·batch_size + i is row p of an endless sequence of epochs. Epoch e is the stream shuffled
    with a seed made of (seed, e); a row that cannot be used is replaced by the next usable one. What a step
    gets is therefore a function of (stream, batch_size, seed, step); a step out of turn reads past the rows
    before it.

    Args:
        stream: Where rows are read from.
        batch_size: Examples of a step, over all processes.
        seed: Of the order.

    Attributes:
        epoch_length: 0 while it is not known; setting it, where it is known from before, saves reading the
            first epoch to its end.
    """

    def __init__(self, stream: Stream, batch_size: int, seed: int) -> None:
        self.data, self.batch_size, self.seed = stream, batch_size, seed
        self.epoch_length = 0
        self._start = -1  # position of the first row in the window
        self._window: deque[Row] = deque()
        self._rows: Iterator[Row] = iter(())
        self._epoch = self._read = 0  # the epoch, and how many of its rows were read

    def take(self, step: int, rank: int = 0, world: int = 1) -> Share:
        """This process's share of the batch of a step.

        Args:
            step: Number of the step, from 0.
            rank: Number of the process.
            world: Number of processes, which divides batch_size.
        """
        try:
            return self._take(step, positions(self.batch_size, step, rank, world))
        except BaseException:
            self._start = (
                -1
            )  # after a failure the place in the stream is unknown: the next step finds it again
            self._window.clear()
            raise

    def _take(self, step: int, places: Tensor) -> Share:
        if self._start != step * self.batch_size:
            self._go_to(step * self.batch_size)
        rows = [self._row(place) for place in places.tolist()]
        found = [*zip(threads().map(self.data.decoded, rows), rows, strict=True)]
        shown = [
            self._replacement(place, row) if image is None else (image, row)
            for place, (image, row) in zip(places.tolist(), found)
        ]
        self._pass_batch()
        labels = torch.tensor([row.label for _, row in shown]) if self.data.labelled else None
        return Share(torch.from_numpy(np.stack([image for image, _ in shown])), labels, places, {})

    def _replacement(self, place: int, row: Row) -> tuple[np.ndarray, Row]:
        """The first usable row after this place in the window."""
        for later in range(place + 1, place + 1 + IN_A_ROW):
            image = self.data.decoded(other := self._row(later))
            if image is not None:
                return image, other
        raise self.data.decoder.no_replacement(row)

    def _row(self, place: int) -> Row:
        """The row at this place in the window, which is extended up to there."""
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
        """Empty the window and start it at a position; finds the length of an epoch where it is unknown."""
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
