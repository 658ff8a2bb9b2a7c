"""Batches in the order of training, read ahead while the network computes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.data.base import Batches, Share

__all__ = ["Prefetcher", "Microbatch"]

_PATIENCE = 2.0  # seconds
_AHEAD = 4  # steps: a slow file delays training only if it takes longer than so many


class Microbatch(NamedTuple):
    """Examples of a batch, on the CPU.

    x0: float32 (B, *) in the data's range.   y: int64 (B,) or None.   values: what x0 was made of.
    positions: int64 (B,), the places in the batch of all processes, which key the noise.   arrays: further
    arrays (B, *) by name.
    """

    x0: Tensor
    y: Tensor | None
    values: Tensor
    positions: Tensor
    arrays: Mapping[str, Tensor]


class _Reader:
    """A thread that reads steps in the order in which they are asked for; after one that fails it drops the
    others.

    It is a daemon: a process that ends does not wait for a disk or a network that has stalled.
    """

    def __init__(self, read: Callable[[int], list[Microbatch]]) -> None:
        self._read = read
        self._wanted: queue.SimpleQueue[tuple[int, Future[list[Microbatch]]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="read ahead")
        self._thread.start()

    def submit(self, step: int) -> Future[list[Microbatch]]:
        future: Future[list[Microbatch]] = Future()
        self._wanted.put((step, future))
        return future

    def close(self) -> None:
        """Drop what is asked for, and give what is being read a moment to end."""
        self._drop()
        self._wanted.put(None)
        self._thread.join(_PATIENCE)

    def _work(self) -> None:
        while (wanted := self._wanted.get()) is not None:
            step, future = wanted
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._read(step))
            except BaseException as error:
                self._drop()
                future.set_exception(error)

    def _drop(self) -> None:
        with suppress(queue.Empty):
            while (wanted := self._wanted.get_nowait()) is not None:
                wanted[1].cancel()
            self._wanted.put(None)  # closed while it was being emptied


class Prefetcher:
    """This process's share of each step's batch. Any step can be asked for; asked for in turn, they are ready
    ahead of time.

    What a step gets is a function of (batches, step, rank, world) alone, and the shares of all ranks in turn
    are the batch.
    batches: what `order` of the data gives.   steps: how many there are; none after them is read.
    unreadable_files: where the names of unusable files are kept, each once.   waited: seconds that the caller has
    waited for data, in all.
    """

    def __init__(
        self,
        batches: Batches,
        rank: int = 0,
        world: int = 1,
        cuts: int = 1,
        unreadable_files: Path | None = None,
        steps: int | None = None,
    ) -> None:
        self.batches, self.rank, self.world, self.cuts, self.steps = batches, rank, world, cuts, steps
        data = batches.data
        self.waited = 0.0
        self._reader = None if data.in_memory else _Reader(self._read)
        self._pending: dict[int, Future[list[Microbatch]]] = {}
        if unreadable_files is not None and (rank == 0 or not data.in_memory):
            data.broken.write_to(unreadable_files)

    def parts(self, step: int) -> list[Microbatch]:
        """The share of `step`'s batch, in `cuts` parts."""
        start = time.perf_counter()
        try:
            return self._read(step) if self._reader is None else self._ahead(step, self._reader)
        finally:
            self.waited += time.perf_counter() - start

    def close(self) -> None:
        """Read no further."""
        if self._reader is not None:
            self._reader.close()

    def _ahead(self, step: int, reader: _Reader) -> list[Microbatch]:
        last = step + _AHEAD if self.steps is None else min(step + _AHEAD, max(step, self.steps - 1))
        wanted = range(step, last + 1)
        for other in [other for other in self._pending if other not in wanted]:
            self._pending.pop(other).cancel()
        for other in wanted:
            if other not in self._pending:
                self._pending[other] = reader.submit(other)
        try:
            return self._pending.pop(step).result()
        except BaseException:
            self._pending.clear()  # the reader has dropped them
            raise

    def _read(self, step: int) -> list[Microbatch]:
        share = self.batches.take(step, self.rank, self.world)
        places = torch.arange(len(share.values)).chunk(self.cuts)
        return [self._part(share, int(part[0]), int(part[-1]) + 1) for part in places]

    def _part(self, share: Share, start: int, stop: int) -> Microbatch:
        """Examples `start` … `stop` − 1 of a share."""
        spec = self.batches.data.spec
        values = share.values[start:stop]
        x0 = values if spec.bins is None else spec.from_bins(values)
        y = None if share.labels is None else share.labels[start:stop]
        arrays = {name: array[start:stop] for name, array in share.arrays.items()}
        return Microbatch(x0, y, values, share.positions[start:stop], arrays)
