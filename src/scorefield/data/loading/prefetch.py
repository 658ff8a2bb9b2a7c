"""Batches in the order of training, read ahead while the network computes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import torch

from scorefield.data.base import Batches, Microbatch, Share, microbatch

__all__ = ["Prefetcher"]

AHEAD = 4  # steps: a slow file delays training only if reading it takes longer than they do
_PATIENCE = 2.0  # seconds that closing waits for a read that is under way


class _Reader:
    """A thread that reads steps in the order in which they are submitted, and after an error drops the
    others.

    It is a daemon, so that the process can end while a disk or a network has stalled.
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
        """Drop what was submitted, and wait a moment for the read that is under way."""
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
    """This process's share of each step's batch, read ahead of time where reading takes time.

    Any step can be asked for; asked for in turn, they are ready ahead of time. What a step gets is a function
    of (batches, step, rank, world) alone, and the shares of all ranks, in turn, are the batch. `waited`
    counts the seconds that the caller has waited for data.

    Args:
        batches: What `order` of the data returns.
        rank: The number of this process, from 0.
        world: How many processes there are.
        cuts: Parts that a share is cut into (gradient accumulation).
        unreadable_files: File to which the names of unusable files are written, each once.
        steps: Number of steps; none after them is read. Default: no end.
        ahead: How many steps are read ahead.
    """

    def __init__(
        self,
        batches: Batches,
        rank: int = 0,
        world: int = 1,
        cuts: int = 1,
        unreadable_files: Path | None = None,
        steps: int | None = None,
        ahead: int = AHEAD,
    ) -> None:
        self.batches, self.rank, self.world, self.cuts = batches, rank, world, cuts
        self.steps, self.ahead = steps, ahead
        data = batches.data
        self.waited = 0.0
        self._reader = None if data.in_memory else _Reader(self._read)
        self._pending: dict[int, Future[list[Microbatch]]] = {}
        if unreadable_files is not None and (rank == 0 or not data.in_memory):
            data.unreadable.write_to(unreadable_files)

    def parts(self, step: int) -> list[Microbatch]:
        """The share of the batch of a step, in `cuts` parts of equal size.

        Args:
            step: Number of the step, from 0.
        """
        start = time.perf_counter()
        try:
            return self._read(step) if self._reader is None else self._ahead(step, self._reader)
        finally:
            self.waited += time.perf_counter() - start

    def close(self) -> None:
        """Stop reading."""
        if self._reader is not None:
            self._reader.close()

    def _ahead(self, step: int, reader: _Reader) -> list[Microbatch]:
        last = step + self.ahead if self.steps is None else min(step + self.ahead, max(step, self.steps - 1))
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
        labels = None if share.labels is None else share.labels[start:stop]
        arrays = {name: array[start:stop] for name, array in share.arrays.items()}
        cut = Share(share.values[start:stop], labels, share.positions[start:stop], arrays)
        return microbatch(cut, self.batches.data.spec)
