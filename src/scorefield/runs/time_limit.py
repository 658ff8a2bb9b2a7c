"""The time that a new run is given: its number of steps follows from the speed of training, once, before the first one."""

from __future__ import annotations

from time import monotonic

from scorefield.core.shapes import are_images
from scorefield.data import Dataset, Stream
from scorefield.objectives import Objective
from scorefield.runtime.checks import number, positive_int
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import InputError
from scorefield.runtime.progress import SILENT, Reporter
from scorefield.training import Speed, TrainingOptions, measure_speed

__all__ = ["TimeLimit"]

_LEAST = 50  # steps: fewer train nothing that is worth a look
_TRIED, _TRIED_SHARE = 20.0, 0.03  # the trial: seconds, and share of the time


class TimeLimit:
    """Minutes for a training, from the moment this is made: reading the data and the trial count too.

    The learning rate and the average of the weights follow from the number of steps. So that number is set before the
    first step and written into the run, which is from then on the same as one that was given it: no clock stops it.

    Args:
        minutes: How long training may take.
        at_most: The largest number of steps. Default: as many as fit.
    """

    def __init__(self, minutes: float, at_most: int | None = None) -> None:
        self.minutes = number("minutes", minutes, above=0)
        self.at_most = None if at_most is None else positive_int("at_most, the number of steps,", at_most)
        self._began = monotonic()

    def __repr__(self) -> str:
        most = "" if self.at_most is None else f", at_most={self.at_most}"
        return f"TimeLimit({self.minutes:g}{most})"

    def steps(
        self,
        objective: Objective,
        data: Dataset | Stream,
        options: TrainingOptions,
        device: str | None = None,
        processes: Processes | None = None,
        progress: Reporter = SILENT,
    ) -> int:
        """The number of steps that fit, measured by a few of them on a copy of the objective.

        Args:
            objective: What is trained.
            data: What it is trained on.
            options: How it is trained; their number of steps is that of the recipe, for what is said.
            device: As of `sf.train`.
            processes: Those that train together; each calls this. Default: this one alone.
            progress: Receives what to expect.
        Raises:
            InputError: Where hardly any fit.
        """
        progress.say("measuring the training speed")
        tried = min(_TRIED, _TRIED_SHARE * 60 * self.minutes)
        speed = measure_speed(objective, data, device=device, seconds=tried, **options.model_dump())
        left = max(0.0, 60 * self.minutes - (monotonic() - self._began))
        images = are_images(data.spec.shape)
        # The clocks of processes differ, and their number of steps must not.
        fitting = (processes or Processes()).on_first(lambda: self._fitting(speed, left, images))
        progress.say(self._expected(speed, fitting, options.steps))
        return fitting if self.at_most is None else min(fitting, self.at_most)

    def _fitting(self, speed: Speed, left: float, images: bool) -> int:
        """The steps that fit into the time that is left. InputError where they are too few to train anything."""
        fitting = speed.steps_in(left)
        least = _LEAST if self.at_most is None else min(_LEAST, self.at_most)
        if fitting >= least:
            return fitting
        # The trial is longer in a longer time; rounding takes back less than is added.
        needed = self.minutes + (speed.seconds_of(least) - left) / 60
        smaller = "smaller images (data.size), " if images else ""
        raise InputError(
            f"{fitting} steps of {speed.batch_size} examples, {speed.step:.2g} s each, fit into the {left:.2g} s that are left of "
            f"{self.minutes:g} minutes: give {1.1 * needed:.2g} minutes or more, {smaller}a smaller network or a smaller batch"
        )

    def _expected(self, speed: Speed, fitting: int, usual: int) -> str:
        """A sentence on what to expect. usual: the recipe's own number of steps."""
        fit = (
            f"{speed.examples_per_second:,.0f} examples/s: {fitting:,} steps of {speed.batch_size} fit into "
            f"{self.minutes:g} minutes"
        )
        if self.at_most is not None and self.at_most <= fitting:
            return f"{fit}; {self.at_most:,} were requested"
        return f"{fit}; the recipe's default is {usual:,}"
