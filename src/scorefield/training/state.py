"""The state of training that checkpoints hold: weights, averages, optimizer, times and counters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from scorefield.objectives.base import Objective
from scorefield.objectives.times import LearnedTimes
from scorefield.runtime.errors import InputError
from scorefield.runtime.printable import one_line
from scorefield.runtime.reading import reading
from scorefield.runtime.weights import misfit
from scorefield.training.checkpoint import Checkpoint
from scorefield.training.ema import EMA, PowerEMA
from scorefield.training.sharding import all_finite, full_tensors, shard_like

__all__ = ["TrainingState"]

_PROFILE = "profile-"
_NUMBERS = ("step", "skipped", "in_a_row", "lr_factor", "epoch_length")


class TrainingState:
    """Everything that a checkpoint holds.

    Args:
        objective: Holds the model.
        optimizer: Its optimizer.
        ema: Its moving average.
        profiles: Further averages, by their lengths as text.

    Attributes:
        step: How many are done, the skipped ones too.
        skipped: Steps whose loss or gradient was not finite, in all.
        in_a_row: How many of them were the last ones.
        lr_factor: On the learning rate, after returns to earlier checkpoints.
        epoch_length: Of a stream, 0 while it is not known.
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        ema: EMA,
        profiles: Mapping[str, PowerEMA] | None = None,
    ) -> None:
        self.objective, self.optimizer, self.ema, self.profiles = objective, optimizer, ema, profiles or {}
        self.step, self.skipped, self.in_a_row, self.lr_factor, self.epoch_length = 0, 0, 0, 1.0, 0

    def advance(self, finite: bool) -> None:
        """Count a step."""
        self.step += 1
        self.skipped += not finite
        self.in_a_row = 0 if finite else self.in_a_row + 1

    def is_finite(self) -> bool:
        """Whether all weights and averages are. Every process asks."""
        return all_finite([*self.objective.parameters(), *self.ema.shadow.values()])

    def is_good(self) -> bool:
        """Whether training can go on from here: the last step was not skipped, and what it left is finite.
        Every process asks.
        """
        return not self.in_a_row and self.is_finite()

    def groups(self, keep: bool = True) -> dict[str, dict[str, Tensor]]:
        """The tensors of a checkpoint, whole. Every process calls it; keep: whether this one is to have those
        that lie in pieces.
        """
        groups = {
            "weights": full_tensors(self.objective.state_dict(), keep),
            "ema": full_tensors(self.ema.shadow, keep),
            "optimizer": full_tensors(_optimizer_tensors(self.optimizer), keep),
        }
        if isinstance(self.objective.times, LearnedTimes):
            groups["times"] = self.objective.times.state_dict()
        return groups | self.averages(keep)

    def averages(self, keep: bool = True) -> dict[str, dict[str, Tensor]]:
        """The tensors of the averages beside the EMA, whole, as of `groups`."""
        return {
            f"{_PROFILE}{name}": full_tensors(average.shadow, keep) for name, average in self.profiles.items()
        }

    def numbers(self) -> dict[str, object]:
        """The numbers of a checkpoint."""
        return {name: getattr(self, name) for name in _NUMBERS}

    def load(self, found: Checkpoint) -> None:
        """Become what was saved. InputError where it belongs to another model, or something of it is missing."""
        with reading(found.path):
            self._load(found)

    def _load(self, found: Checkpoint) -> None:
        now = self.objective.state_dict()
        averages = {f"{_PROFILE}{name}": average for name, average in self.profiles.items()}
        if new := [name.removeprefix(_PROFILE) for name in averages if name not in found.groups]:
            raise InputError(
                f"{found.path} has no average of length {new[0]}: ema_profiles are chosen when a run starts"
            )
        shadows = {name: average.shadow for name, average in averages.items()}
        for name, wanted in (("weights", now), ("ema", self.ema.shadow), *shadows.items()):
            if (problem := misfit(wanted, found.groups[name])) is not None:
                raise InputError(
                    f"{found.path} holds another model ({name}: {problem}): resume with the run's own"
                )
        weights = {name: shard_like(tensor, now[name]) for name, tensor in found.groups["weights"].items()}
        self.objective.load_state_dict(weights)
        self.ema.load(found.groups["ema"])
        for name, average in averages.items():
            average.load(found.groups[name])
        _load_optimizer(self.optimizer, found.groups["optimizer"], found.path)
        if "times" in found.groups and isinstance(self.objective.times, LearnedTimes):
            self.objective.times.load_state_dict(found.groups["times"])
        for name in _NUMBERS:
            default: int | float = getattr(self, name)
            value = found.state.get(name, default)
            if (
                isinstance(value, bool)
                or not isinstance(value, int | type(default))
                or not 0 <= value < math.inf
            ):
                raise InputError(f"{found.path}: {name} must be a number of at least 0, got {value!r:.100}")
            setattr(self, name, value)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value)
        for index, values in state.items()
        for name, value in values.items()
    }


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: Path) -> None:
    saved = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape not in (parameter.shape, ()):
            raise InputError(
                f"{path}: the optimizer's {one_line(key)} has shape {list(value.shape)} instead of {list(parameter.shape)}"
            )
        state.setdefault(int(index), {})[name] = (
            shard_like(value, parameter) if value.shape == parameter.shape else value
        )
    optimizer.load_state_dict({**saved, "state": state})
