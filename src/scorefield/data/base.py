"""What training reads: the protocols that every source of examples satisfies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.data.images.unreadable import UnreadableLog

__all__ = ["Batches", "Microbatch", "Share", "Source", "microbatch"]


class Share(NamedTuple):
    """One process's share of a batch, as the data hold it.

    Attributes:
        values: (B, *): bins as uint8, or continuous values as float32.
        labels: int64 (B,), or None for data without labels.
        positions: int64 (B,), the places in the batch of all processes.
        arrays: Further arrays (B, *) by name.
    """

    values: Tensor
    labels: Tensor | None
    positions: Tensor
    arrays: Mapping[str, Tensor]


class Microbatch(NamedTuple):
    """Examples of a batch, on the CPU.

    Attributes:
        x0: float32 (B, *) in the data's range.
        y: Labels, int64 (B,), or None.
        values: (B, *), what x0 was made of.
        positions: int64 (B,), the places in the batch of all processes, which key the noise.
        arrays: Further arrays (B, *) by name.
    """

    x0: Tensor
    y: Tensor | None
    values: Tensor
    positions: Tensor
    arrays: Mapping[str, Tensor]


def microbatch(share: Share, spec: DataSpec) -> Microbatch:
    """A share with its values in the data's range."""
    x0 = share.values if spec.bins is None else spec.from_bins(share.values)
    return Microbatch(x0, share.labels, share.values, share.positions, share.arrays)


class Batches(Protocol):
    """The batches of a source in the order of a seed; any step can be asked for."""

    @property
    def data(self) -> Source:
        """The source that these are batches of."""
        ...

    def take(self, step: int, rank: int = 0, world: int = 1) -> Share:
        """The share of one process in the batch of a step.

        Args:
            step: Number of the step, from 0.
            rank: Number of the process.
            world: Number of processes, which divides the batch.
        """
        ...


@runtime_checkable
class Source(Protocol):
    """Examples that can be trained on: a `Dataset`, a `TorchDataset` or a `Stream`."""

    @property
    def spec(self) -> DataSpec:
        """What one example is."""
        ...

    @property
    def source(self) -> str:
        """What the user named, for messages and the description of a run."""
        ...

    @property
    def examples(self) -> int | None:
        """The number of examples; None for a stream, which is not counted."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether every example has a label, an index into spec.classes."""
        ...

    @property
    def counts(self) -> tuple[int, ...]:
        """Examples of each class; nothing without labels, and where they are not counted."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether reading cannot fail and needs no thread of its own."""
        ...

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of the further arrays, sorted."""
        ...

    @property
    def reading(self) -> tuple[str, ...]:
        """What was read, in sentences, for the start of training."""
        ...

    @property
    def unreadable(self) -> UnreadableLog:
        """Log of the files that could not be used."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the packages that decide the order beside the seed."""
        ...

    def order(self, batch_size: int, seed: int) -> Batches:
        """The batches of training.

        Args:
            batch_size: Examples of a step, over all processes.
            seed: Of the order.
        """
        ...

    def some(self, count: int) -> Microbatch:
        """The first examples.

        Args:
            count: How many, or all where there are fewer.
        """
        ...

    def fingerprint(self, arrays: Iterable[str] = ()) -> str:
        """16 hexadecimal digits that identify the examples.

        Args:
            arrays: Names of further arrays that it covers too.
        """
        ...
