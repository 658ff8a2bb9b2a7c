"""What training shows the network at step k: this process's share of the batch, and the noise that belongs to
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.data import (
    Microbatch,
    Prefetcher,
    Source,
    StreamOrder,
    dequantize,
    flip,
    shift,
)
from scorefield.objectives.base import Objective
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import InputError
from scorefield.training.options import TrainingOptions

__all__ = ["BatchLoader", "check_data"]


class BatchLoader:
    """Every example, its noise and its random changes are a function of (seed, step, position in the batch).

    The batch of a step is therefore the same however it is cut into processes and accumulated parts.
    The data suit the objective and the options (see `check_data`).   unreadable_files: where the names of
    unusable files are kept.
    epoch_length: of a stream, if it is known already.
    """

    def __init__(
        self,
        data: Source,
        objective: Objective,
        options: TrainingOptions,
        processes: Processes,
        unreadable_files: Path | None = None,
        epoch_length: int = 0,
    ) -> None:
        self.data, self.options, self.device, self._processes = data, options, processes.device, processes
        self._null_label: Any = getattr(objective.model, "null_label", None)
        self._conditional = data.labelled and bool(getattr(objective.model, "num_classes", 0))
        self._order = data.order(options.batch_size, options.seed)
        if isinstance(self._order, StreamOrder):
            self._order.epoch_length = epoch_length
        self._feed = Prefetcher(
            self._order,
            processes.rank,
            processes.world,
            options.accumulation,
            unreadable_files,
            options.steps,
        )

    @property
    def epoch_length(self) -> int:
        """How many examples an epoch of a stream has; 0 while that is not known, and for what is no stream."""
        return self._order.epoch_length if isinstance(self._order, StreamOrder) else 0

    @property
    def waited(self) -> float:
        """Seconds that training has waited for data, in all."""
        return self._feed.waited

    def at(self, step: int) -> Iterator[tuple[Tensor, Tensor | None, NoiseSource]]:
        """The accumulated parts of a step, equal in size: x0 (B, *) and y (B,) or None on the device, and
        their noise.
        """
        for part in self._parts(step):
            noise = NoiseSource(self.options.seed, part.positions, step)
            yield *self._changed(part, noise), noise

    def close(self) -> None:
        """Read no further."""
        self._feed.close()

    def _parts(self, step: int) -> list[Microbatch]:
        """What lies in memory cannot fail; a file or a stream may, for one process alone."""
        return (
            self._feed.parts(step)
            if self.data.in_memory
            else self._processes.on_all(lambda: self._feed.parts(step))
        )

    def _changed(self, part: Microbatch, noise: NoiseSource) -> tuple[Tensor, Tensor | None]:
        x0, y, size = part.x0, part.y, len(part.x0)
        if self.options.dequantize:
            x0 = dequantize(part.values, noise.uniform(x0.shape), self.data.spec)
        if self.options.flip:
            x0 = flip(x0, noise.uniform((size, 1))[:, 0])
        if self.options.shift:
            x0 = shift(x0, _offsets(noise.uniform((size, 2)), self.options.shift))
        if y is not None and self.options.label_dropout:
            y = torch.where(noise.uniform((size, 1))[:, 0] < self.options.label_dropout, self._null_label, y)
        return x0.to(self.device), y.to(self.device) if y is not None and self._conditional else None


def check_data(objective: Objective, data: Source, options: TrainingOptions, world: int) -> None:
    """What the model and the options ask of the data; a model without an idea of an example takes the data's.

    InputError: the data do not suit them, or the batch cannot be cut into equal parts.
    """
    if options.batch_size % (parts := world * options.accumulation):
        raise InputError(
            f"batch_size {options.batch_size} cannot be cut into {world} processes × {options.accumulation} parts: "
            f"make it a multiple of {parts}"
        )
    model: Any = objective.model
    spec = getattr(model, "data", None)
    if spec is None:
        model.data = data.spec
    elif spec.shape != data.spec.shape:
        raise InputError(
            f"the model is for examples of shape {spec.shape}, but {data.source} has shape {data.spec.shape}"
        )
    if getattr(model, "num_classes", 0) and data.spec.num_classes > model.num_classes:
        raise InputError(
            f"the model knows {model.num_classes} classes, but {data.source} has {data.spec.num_classes}"
        )
    if objective.needs_labels and not data.labelled:
        raise InputError(
            f"this objective learns from labels, and {data.source} has no labels: use a folder with a subfolder for each class, "
            "an .npz with `labels`, or a pair (examples, labels)"
        )
    for what, asked in (("flip mirrors", options.flip), ("shift moves", options.shift)):
        if asked and len(data.spec.shape) != 3:
            raise InputError(
                f"{what} images, and an example of {data.source} has shape {data.spec.shape}: leave it out"
            )
    if options.label_dropout and (not data.labelled or getattr(model, "null_label", None) is None):
        raise InputError(
            "label_dropout replaces labels by none, so it needs data with labels and a class-conditional network with a row for none: "
            "build the network with null_label=True, or leave it out"
        )
    if options.dequantize and data.spec.bins is None:
        raise InputError(
            f"dequantize needs data of integer levels, and {data.source} is continuous: leave it out"
        )


def _offsets(u: Tensor, far: int) -> Tensor:
    """u in [0, 1) -> the integers −far … far, all equally likely."""
    return (u.double() * (2 * far + 1)).long() - far
