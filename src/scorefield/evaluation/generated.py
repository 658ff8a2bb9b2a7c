"""Sets of images to evaluate: sampled from a model and stored, or given by the user."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset, folder, npz
from scorefield.data.class_names import class_numbers
from scorefield.data.dataset import number_labels
from scorefield.data.images.read import EXTENSIONS, image_size
from scorefield.data.images.scan import list_images
from scorefield.evaluation.statistics import Images
from scorefield.generation.sampling import Sampling
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import InputError
from scorefield.runtime.progress import Reporter, Shares
from scorefield.samplers import Sampler
from scorefield.store.block_store import Block, StoredSamples
from scorefield.store.file_store import classes_of

__all__ = ["Generated", "GivenSets", "SampledSets"]


class Generated(Protocol):
    """Sets of images of one size."""

    @property
    def count(self) -> int:
        """Images a set."""
        ...

    @property
    def sets(self) -> int:
        """How many sets."""
        ...

    @property
    def stamp(self) -> Mapping[str, object]:
        """How they came about."""
        ...

    def make(self, processes: Processes, watch: Reporter) -> None:
        """Do whatever takes long.

        Args:
            processes: Those that share it.
            watch: Receives progress reports.
        """
        ...

    def images(self, k: int) -> Images:
        """The images of a set, a batch at a time.

        Args:
            k: Which set, from 0.
        """
        ...


class SampledSets:
    """Sets of a model's samples; set k is of seed + k. They stay in a folder, for other metrics, more
    samples, and to go on with.
    """

    def __init__(self, sampling: Sampling, parent: Path, *, count: int, sets: int, seed: int) -> None:
        self.sampling, self.parent = sampling, parent
        self.count, self.sets, self.seed = count, sets, seed
        spec = sampling.spec
        self._stores = [StoredSamples.within(parent, sampling.identity(seed + k), spec) for k in range(sets)]
        sampling.check()
        self._missing = [store.missing(count) for store in self._stores]

    @property
    def stamp(self) -> dict[str, object]:
        how = self.sampling
        return {
            "samples": self.count,
            "sets": self.sets,
            **_describe(how.sampler),
            "grid": how.options.grid,
            "steps": how.steps,
            "calls": how.calls,
            "guidance": how.guidance or "none",
            "clip": how.options.clip,
            "start": how.options.start,
            "labels": "none" if how.labels is None else "the held-out images' own",
            "seed": self.seed,
            "precision": how.precision,
        }

    def make(self, processes: Processes, watch: Reporter) -> None:
        """Make the blocks that are not stored yet. Interrupted at any moment, the same call goes on with what
        is missing.
        """
        missing, blocks = (
            sum(map(len, self._missing)),
            self.sets * self._stores[0].rounded(self.count) // self._stores[0].size,
        )
        if missing < blocks:
            watch.say(
                f"{blocks - missing} of {blocks} blocks of samples are stored in {self.parent} and reused"
            )
        todo, steps = (
            sum(len(processes.share(numbers)) for numbers in self._missing),
            self.sampling.steps,
        )
        if not todo:
            return
        samples = self.sets * self.count * todo // blocks
        with watch.progress(f"sampling {self.sets} × {self.count:,}", samples) as bar:
            advance = Shares(bar, samples, todo * steps).advance
            for k, store in enumerate(self._stores):
                store.make(self.count, partial(self._sample, k, advance), processes)

    def images(self, k: int) -> Images:
        for block in self._stores[k].blocks(self.count):
            yield block.x, None if block.labels is None else torch.tensor(block.labels)

    def _sample(self, k: int, advance: Callable[[], None], numbers: list[int]) -> Iterator[Block]:
        store = self._stores[k]
        return self.sampling.blocks(
            store.rounded(self.count),
            self.seed + k,
            size=store.size,
            blocks=numbers,
            on_step=lambda block, step: advance(),
        )


@dataclass(frozen=True)
class GivenSets:
    """Sets of consecutive images from a folder or an .npz file, in their order."""

    data: Dataset
    spec: DataSpec
    count: int
    sets: int
    path: Path

    @classmethod
    def open(cls, path: Path, spec: DataSpec, count: int, sets: int) -> GivenSets:
        """At most `sets` sets of `count`. InputError: no images, images of another size, fewer than one set."""
        if path.suffix.lower() == ".npz":
            data = npz(path)
        else:
            _check_sizes(path, spec)
            data = _with_classes(folder(path, size=None, channels=spec.shape[0]), path)
        if data.spec.shape != spec.shape:
            raise InputError(
                f"{path} holds images of shape {data.spec.shape}, but the run makes {spec.shape}: give samples of the run's size"
            )
        whole = len(data) // count
        if whole < 1:
            raise InputError(
                f"{path} holds {len(data)} images, fewer than one set of {count}: give a smaller -n"
            )
        return cls(data, spec, count, min(sets, whole), path)

    @property
    def stamp(self) -> dict[str, object]:
        return {
            "samples": self.count,
            "sets": self.sets,
            "images of": str(self.path),
            "fingerprint": self.data.fingerprint(),
        }

    def make(self, processes: Processes, watch: Reporter) -> None:
        """They are there; says where their classes are not the run's."""
        if self.data.labels is not None and self.spec.classes and self._classes() is None:
            watch.say(
                f"note: {self.path} has the classes {', '.join(self.data.spec.classes[:5])}, …, which are not the run's: "
                "agreement with the class is not measured"
            )

    def images(self, k: int) -> Images:
        low, high = self.spec.range
        classes = self._classes()
        for part in torch.arange(k * self.count, (k + 1) * self.count).split(64):
            labels = None if classes is None or self.data.labels is None else classes[self.data.labels[part]]
            yield low + (high - low) * self.data.values[part].float() / 255, labels

    def _classes(self) -> Tensor | None:
        """The run's number of each class, where all of them are the run's."""
        try:
            return torch.tensor(class_numbers(self.data.spec.classes, self.spec.classes))
        except InputError:
            return None


def _with_classes(data: Dataset, path: Path) -> Dataset:
    """Pictures that lie together, with the classes that `sample` says they have, where it says so of all of
    them.
    """
    said = classes_of(path)
    names = sorted(
        file.name
        for file in path.iterdir()
        if file.suffix.lower() in EXTENSIONS and not file.name.startswith(".")
    )
    if data.labels is not None or data.skipped or not all(said.get(name) for name in names):
        return data
    labels, classes = number_labels(np.array([said[name] for name in names]), str(path))
    return dataclasses.replace(data, labels=labels, spec=dataclasses.replace(data.spec, classes=classes))


def _check_sizes(path: Path, spec: DataSpec) -> None:
    """InputError where a picture is not of the run's size: pictures are compared as they are, never resized."""
    if not path.is_dir():
        raise InputError(f"{path}: there is no such folder or .npz file of images")
    for name, file in list_images(path, str(path)).files():
        try:
            width, height = image_size(file)
        except InputError:  # reading the folder names those that cannot be read
            continue
        if (height, width) != spec.shape[1:]:
            raise InputError(
                f"{path}: {name} has {width}×{height} pixels, but the run makes {spec.shape[2]}×{spec.shape[1]}: give samples of "
                "that size"
            )


def _describe(sampler: Sampler) -> dict[str, object]:
    """A sampler's name and its options."""
    options = {field.name: getattr(sampler, field.name) for field in dataclasses.fields(sampler)}  # type: ignore[arg-type]
    return {"sampler": type(sampler).__name__, **options}
