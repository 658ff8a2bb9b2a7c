"""One job of many samples: into a folder as they are made, or into one file at the end; resumable, and shared by
processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from scorefield.generation.samples import Samples
from scorefield.generation.sampling import Sampling
from scorefield.runtime.atomic import make_folder, remove, remove_empty
from scorefield.runtime.checks import unwritable
from scorefield.runtime.distributed import Processes
from scorefield.runtime.progress import SILENT, Reporter, Shares
from scorefield.samplers.base import Step
from scorefield.store.block_store import BLOCK, Block, BlockFolder, StoredSamples
from scorefield.store.file_store import SampleFiles
from scorefield.store.lock import RunLock
from scorefield.store.outputs import is_folder_name
from scorefield.store.writers import save_animation

__all__ = ["SampleJob"]

_FRAMES = 100  # of an animation, at the most


class _Claim:
    """The right to make the file whose blocks are in this folder; taken by one process of a job for all of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: RunLock | None = None

    def take(self) -> None:
        """InputError where another job has it."""
        try:
            make_folder(self._folder)
        except OSError as error:
            raise unwritable(self._folder, error) from None
        self._lock = RunLock(self._folder / ".lock")

    def release(self) -> None:
        """The folder goes where no blocks wait in it: they may be of this job, or of another one."""
        if self._lock is not None:
            self._lock.release()
            remove_empty(self._folder)


@dataclass
class SampleJob:
    """Samples 0 … n−1 of a seed, and where they go.

    Attributes:
        sampling: How they are made.
        seed: Sample i of a seed does not depend on n.
        n: How many.
        target: A folder, .npz or .png.
        size: Samples computed at once.
        animation: A .gif of the first block, if one is wanted.
        progress: Reports what is done.
        kept: Blocks of this process that were there already.
    """

    sampling: Sampling
    seed: int
    n: int
    target: Path
    size: int = BLOCK
    animation: Path | None = None
    progress: Reporter = SILENT
    kept: int = field(default=0, init=False)
    _frames: list[Tensor] = field(default_factory=list, init=False)
    _seen: int = field(default=0, init=False)  # steps of the first block

    def run(self, processes: Processes | None = None) -> None:
        """Make what is missing, in shares; the first process writes what is written once. What is made
        survives any end.

        Raises:
            InputError: The target holds other samples or cannot be written; samples that are not finite.
        """
        processes = processes or Processes()
        processes.check_same(self._facts, "comparing what is sampled")
        if is_folder_name(self.target):
            self._into_folder(processes)
        elif self.n > self.size:
            self._through_blocks(processes)
        else:  # nothing to share or to go on with
            if processes.first:
                self._write(self._drawn(self.n, [0]))
            processes.leave()
        if processes.first and self.animation is not None:
            labels, shown = self.sampling.labels, len(self._frames[0])
            each = None if labels is None else [labels[i % len(labels)] for i in range(shown)]
            save_animation(self.animation, self._frames, each, self.sampling.spec.classes)
            self.progress.say(f"wrote {self.animation}")

    def _facts(self) -> dict[str, object]:
        """What every process must have alike."""
        what = self.sampling.identity(self.seed)
        return {"n": self.n, "block": self.size, "out": str(self.target), **what}

    def in_memory(self) -> Samples:
        """The samples, of the same bytes as those that `run` writes."""
        n = self.n if self.n <= self.size else -(-self.n // self.size) * self.size
        blocks = self._drawn(n, list(range(-(-n // self.size))))
        return Samples.of(self._cut(blocks), self.sampling.spec)

    def _cut(self, blocks: Iterator[Block]) -> Iterator[Block]:
        """The first n samples of whole blocks."""
        for block in blocks:
            count = min(len(block.x), self.n - block.indices.start)
            labels = None if block.labels is None else block.labels[:count]
            yield Block(block.indices[:count], block.x[:count], labels)

    def _into_folder(self, processes: Processes) -> None:
        files = SampleFiles(self.target, self.sampling.identity(self.seed), self.sampling.spec, self.size)
        self._make(files, processes)
        if processes.first and self.sampling.labels is not None:
            files.write_labels(self.n, self.sampling.labels)

    def _through_blocks(self, processes: Processes) -> None:
        """One file, from blocks that wait beside it until there are all of them. One job at a time makes it."""
        beside = self.target.with_name(self.target.name + ".blocks")
        claim = _Claim(beside)
        processes.on_first(claim.take)
        try:
            what, spec = self.sampling.identity(self.seed), self.sampling.spec
            stored = StoredSamples.within(beside, what, spec, self.size)
            self._make(stored, processes)
            if processes.first:
                self._write(stored.blocks(self.n))
                remove(stored.folder)
        finally:
            claim.release()

    def _make(self, store: BlockFolder, processes: Processes) -> None:
        """The missing blocks of this process's share, then wait for the other processes."""
        share = len(processes.share(range(store.rounded(self.n) // store.size)))

        def sample(numbers: list[int]) -> Iterator[Block]:
            if len(numbers) < share:
                whose = " of the first process" if processes.world > 1 else ""
                self.progress.say(
                    f"{share - len(numbers)} of {share} blocks{whose} are already in {store.folder} and reused"
                )
            return self._drawn(store.rounded(self.n), numbers)

        with self._interruptible(store.folder):
            self.kept = share - store.make(self.n, sample, processes)
            if processes.first and self.animation is not None and not self._frames:
                list(self._drawn(store.rounded(self.n), [0]))  # of a block that was there already
        processes.leave()

    def _drawn(self, n: int, numbers: list[int]) -> Iterator[Block]:
        """Blocks of n samples; progress counts samples, those in the making by their share of steps."""
        count = sum(min(self.size, self.n - k * self.size) for k in numbers)
        with self.progress.progress("sampling", count) as bar:
            on_step = partial(self._on_step, Shares(bar, count, len(numbers) * self.sampling.steps))
            yield from self.sampling.blocks(n, self.seed, size=self.size, blocks=numbers, on_step=on_step)

    def _on_step(self, bar: Shares, k: int, step: Step) -> None:
        bar.advance()
        if k == 0 and self.animation is not None:
            self._seen += 1
            steps = self.sampling.steps
            if self._seen % max(1, steps // _FRAMES) == 0 or self._seen == steps:
                self._frames.append(self.sampling.spec.to_uint8(step.x[: self.n]).cpu())

    def _write(self, blocks: Iterator[Block]) -> None:
        """The .npz or the grid of all the samples."""
        Samples.of(blocks, self.sampling.spec).write(self.target)

    @contextmanager
    def _interruptible(self, folder: Path) -> Iterator[None]:
        """An end between two files comes with a word on how it goes on."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            self.progress.say(
                f"the samples computed so far are kept in {folder}: run the same command again to continue"
            )
            raise
