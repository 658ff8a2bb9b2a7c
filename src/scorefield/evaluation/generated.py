"""Where the images that are judged come from: sampled from a model and stored as they are made, or given by
the user.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset, folder, npz
from scorefield.data.dataset import number_labels
from scorefield.data.images.read import EXTENSIONS
from scorefield.evaluation.statistics import Images
from scorefield.generation.blocks import sample_blocks
from scorefield.generation.options import Sampling, SamplingOptions
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import InputError
from scorefield.runtime.progress import Reporter
from scorefield.samplers import Sampler
from scorefield.samplers.base import network_calls, trajectory
from scorefield.store.block_store import Block, StoredSamples, identity
from scorefield.store.file_store import classes_of

__all__ = ["Generated", "GivenSets", "SampledSets"]


class Generated(Protocol):
    """Sets of images of one size. count: images a set.   sets: how many.   stamp: how they came about.

    make: whatever takes long, shared by processes.   images(k): those of the k-th set, a batch at a time.
    """

    @property
    def count(self) -> int: ...

    @property
    def sets(self) -> int: ...

    @property
    def stamp(self) -> Mapping[str, Any]: ...

    def make(self, processes: Processes, watch: Reporter) -> None: ...

    def images(self, k: int) -> Images: ...


class SampledSets:
    """Sets of a model's samples; set k is of seed + k. They stay in a folder, for other metrics, more
    samples, and to go on with.

    sampling, options: how, as objects and as the options they were built from.   labels: cycled over the
    samples.
    weights: a hash of the model's weights.   classifier: the "run" and "sha256" of the one that guides, if
    one does.
    """

    def __init__(
        self,
        model: Any,
        sampling: Sampling,
        options: SamplingOptions,
        parent: Path,
        *,
        count: int,
        sets: int,
        seed: int,
        labels: Sequence[int] | None,
        weights: str,
        classifier: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.sampling, self.options = model, sampling, options
        self.count, self.sets, self.seed, self.labels = count, sets, seed, labels
        self.parent, self.classifier = parent, classifier
        settings = options.model_dump(include={"clip", "start", "guidance", "guidance_at"})
        settings["classifier"] = classifier and classifier["sha256"]
        self._stores = [
            StoredSamples.within(
                parent,
                identity(model, *sampling[:2], seed + k, labels, weights=weights, **settings),
                model.data,
            )
            for k in range(sets)
        ]
        self._check()
        self._missing = [store.missing(count) for store in self._stores]

    @property
    def stamp(self) -> dict[str, Any]:
        grid = self.sampling.grid
        return {
            "samples": self.count,
            "sets": self.sets,
            **_describe(self.sampling.sampler),
            "grid": self.options.grid,
            "steps": len(grid) - 1,
            "calls": network_calls(self.sampling.sampler, getattr(self.model, "process", None), grid),
            "guidance": _guidance(self.options, self.classifier),
            "clip": self.options.clip,
            "start": self.options.start,
            "labels": "none" if self.labels is None else "the held-out images' own",
            "seed": self.seed,
            "precision": "fp32" if getattr(self.model, "autocast_dtype", None) is None else "bf16",
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
            len(self.sampling.grid) - 1,
        )
        if not todo:
            return
        with watch.progress(f"sampling {self.sets} × {self.count:,}", todo * steps) as bar:
            for k, store in enumerate(self._stores):
                store.make(self.count, partial(self._sample, k, bar.advance), processes)

    def images(self, k: int) -> Images:
        for block in self._stores[k].blocks(self.count):
            yield block.x, None if block.labels is None else torch.tensor(block.labels)

    def _sample(self, k: int, advance: Callable[[], None], numbers: list[int]) -> Iterator[Block]:
        store, (sampler, grid, wrap, start) = self._stores[k], self.sampling
        return sample_blocks(
            self.model,
            sampler,
            grid,
            store.rounded(self.count),
            self.seed + k,
            labels=self.labels,
            wrap=wrap,
            start=start,
            size=store.size,
            on_step=lambda block, step: advance(),
            blocks=numbers,
        )

    def _check(self) -> None:
        """What does not fit together is found before anything is computed."""
        sampler, grid, wrap, start = self.sampling
        labels = None if self.labels is None else [self.labels[0]]
        x = (start or self.model.process.prior)((1, *self.model.data.shape), NoiseSource(self.seed).at(0))
        trajectory(wrap(self.model, labels), sampler, grid, x.to(self.model.device))


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
        channels, size = spec.shape[0], spec.shape[-1]
        if path.suffix.lower() == ".npz":
            data = npz(path)
        else:
            _check_sizes(path, spec)
            data = _with_classes(folder(path, size=size, channels=channels), path)
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
    def stamp(self) -> dict[str, Any]:
        return {
            "samples": self.count,
            "sets": self.sets,
            "images of": str(self.path),
            "fingerprint": self.data.fingerprint(),
        }

    def make(self, processes: Processes, watch: Reporter) -> None:
        """They are there."""

    def images(self, k: int) -> Images:
        low, high = self.spec.range
        classes = self._classes()
        for part in torch.arange(k * self.count, (k + 1) * self.count).split(64):
            labels = None if classes is None or self.data.labels is None else classes[self.data.labels[part]]
            yield low + (high - low) * self.data.values[part].float() / 255, labels

    def _classes(self) -> Tensor | None:
        """The run's number of each class, where all the names are the run's."""
        names = self.data.spec.classes
        if not names or not set(names) <= set(self.spec.classes):
            return None
        return torch.tensor([self.spec.classes.index(name) for name in names])


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
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() not in EXTENSIONS or any(
            part.startswith(".") for part in file.relative_to(path).parts
        ):
            continue
        try:
            with Image.open(file) as image:
                width, height = image.size
        except OSError:  # reading the folder names those that cannot be read
            continue
        if (height, width) != spec.shape[1:]:
            raise InputError(
                f"{file} has {width}×{height} pixels, but the run makes {spec.shape[2]}×{spec.shape[1]}: give samples of that size"
            )


def _guidance(options: SamplingOptions, classifier: Mapping[str, Any] | None) -> str:
    if classifier is not None:
        scale = 1.0 if options.guidance is None else options.guidance
        return f"by the classifier {classifier['run']} (sha256 {classifier['sha256']}), scale {scale:g}, at {options.guidance_at}"
    return "none" if options.guidance is None else f"classifier-free, scale {options.guidance:g}"


def _describe(sampler: Sampler) -> dict[str, Any]:
    """A sampler's name and its options."""
    options = {field.name: getattr(sampler, field.name) for field in dataclasses.fields(sampler)}  # type: ignore[arg-type]
    return {"sampler": type(sampler).__name__, **options}
