"""One job of scorefield sample: what is drawn goes into a folder as it is made, or into one file at the end."""

from __future__ import annotations

import glob
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorefield.cli.console import Progress, progress, say

if TYPE_CHECKING:
    from torch import Tensor

    from scorefield.core.shapes import DataSpec
    from scorefield.runtime.distributed import Processes
    from scorefield.store.block_store import Block, BlockFolder

__all__ = ["SampleJob"]

_FRAMES = 100  # of an animation, at the most
_TERMINATED = 75


@dataclass
class SampleJob:
    """Samples 0 … n−1 and where they go.

    draw: `sample_blocks` without n, blocks and on_step.   what: they are, see `identity`.   steps: of the
    grid.
    target: a folder, .npz or .png.   labels: cycled over the samples.   animation: a .gif of the first block,
    if one is wanted.
    """

    draw: Callable[..., Iterator[Block]]
    what: Mapping[str, Any]
    spec: DataSpec
    n: int
    steps: int
    target: Path
    labels: list[int] | None = None
    animation: Path | None = None
    kept: int = field(default=0, init=False)  # blocks of this process that were there already
    _frames: list[Tensor] = field(default_factory=list, init=False)
    _seen: int = field(default=0, init=False)  # steps of the first block

    def run(self, processes: Processes) -> None:
        """Make what is missing, in shares; the first process writes what is written once. What is made
        survives any end.

        InputError: the target holds other samples or cannot be written; samples that are not finite.
        """
        from scorefield.store.block_store import BLOCK
        from scorefield.store.writers import save_animation

        if not self.target.suffix:
            self._into_folder(processes)
        elif self.n > BLOCK:
            self._through_blocks(processes)
        else:  # nothing to share or to go on with
            if processes.first:
                self._write(self._drawn(self.n, [0]))
            processes.leave()
        if processes.first and self.animation is not None:
            save_animation(self.animation, self._frames, self.columns)
            say(f"wrote {self.animation}")

    @property
    def columns(self) -> int | None:
        """Of a grid: a class each, if there are not too many."""
        return len(self.labels) if self.labels is not None and 1 < len(self.labels) <= 20 else None

    def _into_folder(self, processes: Processes) -> None:
        from scorefield.store.file_store import SampleFiles

        files = SampleFiles(self.target, self.what, self.spec)
        self._make(files, processes)
        if processes.first and self.labels is not None:
            files.write_labels(self.n, self.labels)

    def _through_blocks(self, processes: Processes) -> None:
        """One file, from blocks that wait beside it until there are all of them."""
        from scorefield.store.block_store import StoredSamples

        beside = self.target.with_name(self.target.name + ".blocks")
        stored = StoredSamples.within(beside, self.what, self.spec)
        self._make(stored, processes)
        if processes.first:
            self._write(stored.blocks(self.n))
            shutil.rmtree(stored.folder)
            if not any(beside.iterdir()):  # blocks of another job may wait there
                beside.rmdir()

    def _make(self, store: BlockFolder, processes: Processes) -> None:
        """The missing blocks of this process's share, then wait for the other processes."""
        share = len(processes.share(range(store.rounded(self.n) // store.size)))

        def sample(numbers: list[int]) -> Iterator[Block]:
            if len(numbers) < share:
                whose = " of the first process" if processes.world > 1 else ""
                say(f"{share - len(numbers)} of {share} blocks{whose} are in {store.folder} and kept")
            return self._drawn(store.rounded(self.n), numbers)

        with _stoppable(store.folder):
            self.kept = share - store.make(self.n, sample, processes)
            if (
                processes.first and self.animation is not None and not self._frames
            ):  # of a block that was there already
                list(self._drawn(store.rounded(self.n), [0]))
        processes.leave()

    def _drawn(self, n: int, numbers: list[int]) -> Iterator[Block]:
        with progress("sampling", len(numbers) * self.steps) as bar:
            yield from self.draw(n, blocks=numbers, on_step=partial(self._on_step, bar))

    def _on_step(self, bar: Progress, k: int, step: Any) -> None:
        bar.advance()
        if k == 0 and self.animation is not None:
            self._seen += 1
            if self._seen % max(1, self.steps // _FRAMES) == 0 or self._seen == self.steps:
                self._frames.append(self.spec.to_uint8(step.x[: self.n]).cpu())

    def _write(self, blocks: Iterable[Block]) -> None:
        """The .npz or the grid of all the samples."""
        import torch

        from scorefield.core.shapes import are_images
        from scorefield.runtime.atomic import abandoned
        from scorefield.store.block_store import finite
        from scorefield.store.writers import save_images, save_points

        for unfinished in abandoned(self.target.parent.glob(f".{glob.escape(self.target.name)}.*.partial")):
            unfinished.unlink(missing_ok=True)
        parts: list[Tensor] = []
        labels: list[int] = []
        images = are_images(self.spec.shape)
        for block in blocks:
            parts.append((self.spec.to_uint8(block.x) if images else finite(block.x)).cpu())
            labels += block.labels or []
        if images:
            save_images(self.target, torch.cat(parts), labels or None, self.columns)
        else:
            save_points(self.target, torch.cat(parts), labels or None)


@contextmanager
def _stoppable(folder: Path) -> Iterator[None]:
    """Ctrl-C and SIGTERM (exit status 75) end the work between two files, with a word on how it goes on."""

    def terminate(number: int, frame: Any) -> None:
        raise SystemExit(_TERMINATED)

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        say(f"what is made stays in {folder}: the same command goes on from there")
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
