"""How fast training is on this machine, measured on a few steps: how many fit into a given time."""

from __future__ import annotations

import copy
import gc
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Unpack

import torch

from scorefield.data import TrainingData
from scorefield.objectives.base import Objective
from scorefield.runtime.bounds import COUNT
from scorefield.runtime.checks import number
from scorefield.runtime.parsing import parse
from scorefield.runtime.progress import SILENT
from scorefield.training.launch import join_training
from scorefield.training.trainer import Trainer
from scorefield.training.training_options import TrainingKeywords, TrainingOptions

__all__ = ["Speed", "measure_speed"]

_FIRST, _LEAST = 2, 3  # steps that are not counted: they compile and allocate; steps that are
_TRIED = 20.0  # seconds of counted steps
_BESIDE = 0.05  # share of a training for checkpoints, previews and losses on held-out examples


@dataclass(frozen=True)
class Speed:
    """How fast training is: of several processes, the slowest one's figures.

    Attributes:
        batch_size: Examples of a step.
        step: Seconds of a step.
        start: Seconds before the first step at this speed: copying to the device, compiling, allocating.
    """

    batch_size: int
    step: float
    start: float = 0.0

    @property
    def examples_per_second(self) -> float:
        """batch_size / step."""
        return self.batch_size / self.step

    def steps_in(self, seconds: float) -> int:
        """Steps of a training that takes about this long, a twentieth of which is left to checkpoints,
        previews and losses on held-out examples.

        Args:
            seconds: How long the training takes.
        """
        return max(0, int(((1 - _BESIDE) * seconds - self.start) / self.step))

    def seconds_of(self, steps: int) -> float:
        """How long a training takes, all included: the inverse of `steps_in`.

        Args:
            steps: Number of steps.
        """
        return (self.start + steps * self.step) / (1 - _BESIDE)


def measure_speed(
    objective: Objective,
    data: TrainingData,
    *,
    device: str | None = None,
    seconds: float = _TRIED,
    **options: Unpack[TrainingKeywords],
) -> Speed:
    """Measure the speed of training by a few steps on a copy of the objective; nothing is kept of them or written.

        speed = sf.training.measure_speed(objective, data, batch_size=64)
        steps = speed.steps_in(600)  # ten minutes

    Args:
        objective: As of `sf.train`.
        data: As of `sf.train`.
        device: As of `sf.train`.
        seconds: Time of the counted steps, at least three; two steps before them, which compile and allocate, are not
            counted.
        **options: As of `sf.train`, with which the run is then trained.
    Returns:
        The speed, the same on all processes of a job.
    Raises:
        InputError: As `sf.train`.
    """
    number("seconds, the time of the trial,", seconds, above=0)
    asked = parse(TrainingOptions, options)
    # No run, so no tracker and nothing to go back to; and no end, be the loss finite or not.
    free = {"steps": COUNT, "bad_steps": COUNT, "trackers": [], "on_divergence": "stop"}
    where = join_training(device).device
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        began = monotonic()
        trainer = Trainer(
            copy.deepcopy(objective),
            data,
            asked.model_copy(update=free),
            device=device,
            progress=SILENT,
        )
        try:
            taken = _try(trainer, seconds)
            step = _mean(taken)
            start = max(0.0, monotonic() - began - len(taken) * step)
            # The slowest process decides: all of them must make the same number of steps.
            step, start = (trainer.agree(round(1e9 * time)) / 1e9 for time in (step, start))
        finally:
            trainer.release()
            del trainer
            gc.collect()  # the copy's memory, before the training itself needs as much
    return Speed(asked.batch_size, max(step, 1e-9), start)


def _try(trainer: Trainer, seconds: float) -> list[float]:
    """Make steps until enough were counted; what each of them took."""
    taken: list[float] = []
    while not trainer.agree(_enough(taken, seconds)):
        before = monotonic()
        next(trainer)
        taken.append(monotonic() - before)
    return taken


def _enough(taken: Sequence[float], seconds: float) -> bool:
    counted = taken[_FIRST:]
    if len(counted) >= _LEAST and sum(counted) >= seconds:
        return True
    return len(taken) > 1 and taken[-1] >= seconds  # a step takes as long as all of them may


def _mean(taken: Sequence[float]) -> float:
    """The mean of the counted steps; where a step takes as long as a trial, of those after the first."""
    counted = taken[_FIRST:] or taken[1:]
    return sum(counted) / len(counted)
