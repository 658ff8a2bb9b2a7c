"""The order in which training visits the data: a pure function of (seed, step)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorefield.data.base import Share, Source
from scorefield.runtime.errors import InputError
from scorefield.runtime.free_memory import needs_memory

__all__ = ["EpochBatches", "EpochOrder", "Indexed", "permutation", "positions"]


_MANY = 2**24  # examples, for whose order memory is asked for first
_BYTES = 16  # for each: its random word, and its place


def permutation(length: int, seed: int, epoch: int = 0, stream: int = 0) -> np.ndarray:
    """A uniform permutation of 0 … length-1, the same on every platform and with every version of NumPy.

    The 64-bit words of the generator are sorted rather than passed to `Generator.permutation`, because NumPy
    guarantees only the former across versions.

    Args:
        length: Number of entries.
        seed: In [0, 2**64); with `epoch` it is the key of a Philox generator.
        epoch: In [0, 2**64).
        stream: Highest word of the generator's counter, so that different uses of a seed share no numbers.

    Returns:
        int64 (length,).
    """
    if not 0 <= seed < 2**64:
        raise InputError(f"a seed must be between 0 and 2**64 - 1, got {seed}")
    if length > _MANY:
        needs_memory(_BYTES * length, f"a random order of {length:,} examples")
    key, counter = np.array([seed, epoch], dtype=np.uint64), np.array([0, 0, 0, stream], dtype=np.uint64)
    words = np.random.Philox(key=key, counter=counter).random_raw(length)
    return np.argsort(words, kind="stable").astype(np.int64)


def positions(batch_size: int, step: int, rank: int = 0, world: int = 1) -> Tensor:
    """This process's places in the batch of a step, int64 (batch_size / world,), contiguous."""
    if step < 0:
        raise InputError(f"step must be at least 0, got {step}")
    if world < 1 or not 0 <= rank < world:
        raise InputError(f"rank must be between 0 and world - 1, got rank {rank} of {world}")
    if batch_size % world:
        raise InputError(
            f"a batch of {batch_size} cannot be shared equally by {world} processes: make batch_size a "
            f"multiple of {world}"
        )
    share = batch_size // world
    return torch.arange(rank * share, (rank + 1) * share)


@dataclass(frozen=True)
class EpochOrder:
    """A seeded, endless, sharded order of `length` examples in batches of `batch_size` (over all processes).

    Position i of the batch of a step is p = step·batch_size + i in an endless sequence of epochs: epoch
    e = p // length is the permutation keyed by (seed, e), and the index is its entry p % length. An epoch may
    end inside a batch; nothing is dropped or padded.

    Args:
        length: Number of examples, at least 1.
        batch_size: Examples of a step, over all processes, at least 1.
        seed: From 0 to 2**64 − 1.
    """

    length: int
    batch_size: int
    seed: int = 0
    _epochs: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.length < 1:
            raise InputError(f"there must be at least one example to put in order, got {self.length}")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.seed < 2**64:
            raise InputError(f"a seed must be between 0 and 2**64 - 1, got {self.seed}")

    def positions(self, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """This process's places in the batch of a step, int64 (batch_size / world,): they key the noise.

        Args:
            step: Number of the step, from 0.
            rank: Number of the process.
            world: Number of processes, which divides batch_size.
        """
        return positions(self.batch_size, step, rank, world)

    def indices(self, step: int, rank: int = 0, world: int = 1) -> Tensor:
        """The examples of this process at a step, int64 (batch_size / world,).

        Args:
            step: Number of the step, from 0.
            rank: Number of the process.
            world: Number of processes, which divides batch_size.
        """
        # Python integers carry the position, so that no run is too long for int64.
        epoch, start = divmod(step * self.batch_size, self.length)
        places = self.positions(step, rank, world).numpy() + start
        epochs, within = np.divmod(places, self.length)
        chosen = np.empty(len(places), dtype=np.int64)
        for later in np.unique(epochs):
            here = epochs == later
            chosen[here] = self._epoch(epoch + int(later))[within[here]]
        return torch.from_numpy(chosen)

    def _epoch(self, epoch: int) -> np.ndarray:
        """The permutation of one epoch; the last two are kept, since a batch usually touches one or two."""
        order = self._epochs.get(epoch)
        if order is None:
            order = permutation(self.length, self.seed, epoch)
            for oldest in list(self._epochs)[:-1]:
                self._epochs.pop(oldest, None)
            self._epochs[epoch] = order
        return order


class Indexed(Source, Protocol):
    """A source whose examples can be read in any order."""

    def share(self, indices: Tensor, positions: Tensor) -> Share:
        """The examples at `indices` (B,), which have these positions (B,) in a batch."""
        ...


@dataclass(frozen=True)
class EpochBatches:
    """The batches of a data set in an `EpochOrder`; any step can be asked for.

    Attributes:
        data: The data set, whose examples are read by index.
        order: Which examples a step has.
    """

    data: Indexed
    order: EpochOrder

    def take(self, step: int, rank: int = 0, world: int = 1) -> Share:
        """The share of one process in the batch of a step.

        Args:
            step: Number of the step, from 0.
            rank: Number of the process.
            world: Number of processes, which divides the batch.
        """
        indices = self.order.indices(step, rank, world)
        return self.data.share(indices, self.order.positions(step, rank, world))
