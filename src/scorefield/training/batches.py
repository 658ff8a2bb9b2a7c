"""What training shows the network at step k: this process's share of the batch, and the noise that belongs to
it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.core.shapes import are_images
from scorefield.data import (
    Microbatch,
    Prefetcher,
    Source,
    StreamOrder,
    dequantize,
    flip,
    shift,
)
from scorefield.models.base import Model
from scorefield.models.foreign import model_like
from scorefield.objectives.base import Objective
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import InputError
from scorefield.training.training_options import TrainingOptions

__all__ = ["BatchLoader", "Conditioned", "check_data", "trained_arrays"]


class Conditioned(NamedTuple):
    """A part of a batch as the network is shown it, on the device.

    Attributes:
        x0: (B, *).
        y: (B,) int64, or None.
        arrays: What else it is conditioned on, (B, *) by name.
        noise: Of these examples.
    """

    x0: Tensor
    y: Tensor | None
    arrays: dict[str, Tensor]
    noise: NoiseSource


class BatchLoader:
    """Every example, its noise and its random changes are a function of (seed, step, position in the batch).

    The batch of a step is therefore the same however it is cut into processes and accumulated parts.

    Args:
        data: The source; it suits the objective and the options (see `check_data`).
        objective: What is trained.
        options: How it is trained.
        processes: Those that train.
        unreadable_files: Where the names of unusable files are kept.
        epoch_length: Of a stream, if it is known already.
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
        self._model = model_like(objective.model)
        self._null_label, self._nulls = self._model.null_label, self._model.nulls
        self._conditional = data.labelled and bool(self._model.num_classes)
        self._arrays = trained_arrays(self._model, data)
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

    def at(self, step: int) -> Iterator[Conditioned]:
        """The accumulated parts of a step, equal in size."""
        for part in self._parts(step):
            noise = NoiseSource(self.options.seed, part.positions, step)
            x0, y, arrays = self._changed(part, noise)
            x0, arrays = x0.to(self.device), {name: array.to(self.device) for name, array in arrays.items()}
            y = y.to(self.device) if y is not None and self._conditional else None
            yield Conditioned(x0, y, self._model.conditioning(x0, arrays), noise)

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

    def _changed(
        self, part: Microbatch, noise: NoiseSource
    ) -> tuple[Tensor, Tensor | None, dict[str, Tensor]]:
        """With the random changes of training; arrays that are images are moved as the image is."""
        x0, y, size = part.x0, part.y, len(part.x0)
        arrays = {name: part.arrays[name] for name in self._arrays}
        images = [name for name, array in arrays.items() if array.ndim == x0.ndim == 4]
        if self.options.dequantize:
            x0 = dequantize(part.values, noise.uniform(x0.shape), self.data.spec)
        if self.options.flip:
            coin = noise.uniform((size, 1))[:, 0]
            x0 = flip(x0, coin)
            arrays |= {name: flip(arrays[name], coin) for name in images}
        if self.options.shift:
            offsets = _offsets(noise.uniform((size, 2)), self.options.shift)
            x0 = shift(x0, offsets)
            arrays |= {name: shift(arrays[name], offsets) for name in images}
        if self.options.label_dropout:
            dropped = noise.uniform((size, 1))[:, 0] < self.options.label_dropout
            if y is not None and self._null_label is not None:
                y = torch.where(dropped, self._null_label, y)
            for name in arrays.keys() & self._nulls.keys():
                row = dropped.reshape(-1, *[1] * (arrays[name].ndim - 1))
                arrays[name] = torch.where(
                    row, torch.as_tensor(self._nulls[name]).to(arrays[name]), arrays[name]
                )
        return x0, y, arrays


def trained_arrays(model: Model, data: Source) -> list[str]:
    """Names of the data's further arrays that the model is conditioned on."""
    made = {"low_res"} if model.low_res is not None else set()  # of the data themselves
    return [name for name in data.array_names if name in model.arrays - made]


def check_data(objective: Objective, data: Source, options: TrainingOptions, world: int) -> None:
    """What the model and the options ask of the data; a model without an idea of an example takes the data's.

    InputError: the data do not suit them, or the batch cannot be cut into equal parts.
    """
    if options.batch_size % (parts := world * options.accumulation):
        raise InputError(
            f"batch_size {options.batch_size} cannot be split into {world} processes × {options.accumulation} "
            f"microbatches: make it a multiple of {parts}"
        )
    model = model_like(objective.model)
    spec = model.data
    if spec is None:
        model.data = data.spec
    elif spec.shape != data.spec.shape:
        raise InputError(
            f"the model is for examples of shape {spec.shape}, but {data.source} has shape {data.spec.shape}"
        )
    elif are_images(spec.shape) and spec.range != data.spec.range:
        raise InputError(
            f"the model is for images with values {spec.range}, but those of {data.source} are {data.spec.range}: build it with "
            "data=data.spec"
        )
    if model.num_classes and data.spec.num_classes > model.num_classes:
        raise InputError(
            f"the model has {model.num_classes} classes, but {data.source} has {data.spec.num_classes}"
        )
    if objective.needs_labels and not data.labelled:
        raise InputError(
            f"this objective needs labels, and {data.source} has no labels: use a folder with a subfolder for "
            "each class, an .npz with `labels`, or a pair (examples, labels)"
        )
    for what, asked in (("flip mirrors", options.flip), ("shift moves", options.shift)):
        if asked and len(data.spec.shape) != 3:
            raise InputError(
                f"{what} images, and an example of {data.source} has shape {data.spec.shape}: remove it"
            )
    arrays = trained_arrays(model, data)
    _check_arrays(objective, model, data, arrays)
    droppable = (data.labelled and model.null_label is not None) or not model.nulls.keys().isdisjoint(arrays)
    if options.label_dropout and not droppable:
        raise InputError(f"label_dropout drops class labels, {_why_none_is_dropped(model, data)}")
    if options.dequantize and data.spec.bins is None:
        raise InputError(
            f"dequantize needs data of integer levels, and {data.source} is continuous: remove it"
        )


def _why_none_is_dropped(model: Model, data: Source) -> str:
    """Why no label can be dropped, and what to do."""
    if not data.labelled:
        return (
            f"and {data.source} has none: use data with classes, such as a folder with a subfolder for each, or set label_dropout "
            "to 0"
        )
    if not model.num_classes:
        return (
            "and this model takes none: make it class-conditional (--set model.conditional=true; in Python a network with "
            "num_classes and null_label=True), or set label_dropout to 0"
        )
    return (
        "and this network has no embedding for dropped labels: build it with null_label=True, declare the "
        "`nulls` of its further arrays, or set label_dropout to 0"
    )


def _check_arrays(objective: Objective, model: Model, data: Source, arrays: list[str]) -> None:
    """InputError where the network needs an array that the data lack, or the objective passes none on."""
    made = {"low_res"} if model.low_res is not None else set()
    if missing := sorted(model.missing - made - set(arrays)):
        there = (
            f"its further arrays are {', '.join(data.array_names)}"
            if data.array_names
            else "it has no further arrays"
        )
        raise InputError(
            f"the network needs the array {missing[0]!r} of every example, and {data.source} has none of that name ({there}): store it "
            f"in the .npz beside `images`, give it as sf.data.tensor(x, {missing[0]}=...), or make it optional in the network's forward"
        )
    accepted = inspect.signature(objective.forward).parameters.values()
    if arrays and not any(one.kind is one.VAR_KEYWORD or one.name == arrays[0] for one in accepted):
        raise InputError(
            f"the network takes the array {arrays[0]!r}, and {type(objective).__name__}.forward passes no arrays on: declare it "
            "forward(self, x0, y, noise, **arrays) and call the model with them"
        )


def _offsets(u: Tensor, far: int) -> Tensor:
    """u in [0, 1) -> the integers −far … far, all equally likely."""
    return (u.double() * (2 * far + 1)).long() - far
