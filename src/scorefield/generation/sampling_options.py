"""How a model is sampled, as options: names and numbers, as recipes and commands give them."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, field_validator

from scorefield.models.guidance_scale import Interval, Schedule
from scorefield.process import Process
from scorefield.runtime.bounds import LEVELS
from scorefield.runtime.checks import did_you_mean
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options, whole_number
from scorefield.runtime.registry import GRIDS
from scorefield.samplers.grids import full, sections, staircase

__all__ = ["FITTED", "SamplingOptions", "build_grid", "check_grid"]

FITTED = "fitted"  # the grid that needs the model, see sf.grids.fitted

# In as many steps as there are levels, all of them.
_EVEN = ("uniform", "trailing", "leading", "linspace")


class SamplingOptions(Options):
    """How a model is sampled unless the command says otherwise."""

    sampler: dict[str, object] = Field(
        {"kind": "ddim"}, description="the sampler and its options, see `scorefield options sampling.sampler`"
    )
    grid: str = Field(
        "uniform",
        description=f"full, {', '.join(GRIDS)}, staircase (annealed Langevin), or counts such as 10,15,20",
    )
    steps: int | None = Field(
        None,
        ge=1,
        le=LEVELS,
        description="number of steps of the grid; default: every level, or 1,000 updates of a score without noise levels",
    )
    repeats: int = Field(1, ge=1, le=LEVELS, description="updates per level of a staircase grid")
    levels: int | None = Field(
        None,
        ge=1,
        le=LEVELS,
        description="number of levels of a staircase grid, evenly spaced; default: all, or `steps` divided by `repeats`",
    )
    start: Literal["prior", "uniform"] = Field(
        "prior",
        description="distribution of x_T: the process's prior, or uniform over the data's range (NCSN)",
    )
    clip: bool = Field(True, description="clip x̂0 to the data's range")
    guidance: float | None = Field(
        None,
        description="guidance scale: with a classifier (default 1), otherwise classifier-free (1 is the conditional "
        "model; default: none)",
    )
    guidance_at: Literal["x_t", "mean"] = Field(
        "x_t", description="point at which ancestral sampling evaluates the classifier's gradient"
    )
    guidance_low: float | None = Field(
        None, ge=0, description="guide only where σ/α is above this; default: 0"
    )
    guidance_high: float | None = Field(
        None, gt=0, description="guide only where σ/α is at most this; default: no limit"
    )
    guidance_schedule: Schedule | None = Field(
        None,
        description="the scale rises from no guidance at t = T as t falls, with the mean `guidance`; default: the same scale at "
        "every t",
    )
    guidance_rescale: float | None = Field(
        None,
        ge=0,
        le=1,
        description="φ, by which a prediction guided without a classifier takes on the standard deviation of the unguided "
        "one; default: 0",
    )

    @field_validator("sampler")
    @classmethod
    def _kind_is_a_word(cls, table: dict[str, object]) -> dict[str, object]:
        if not isinstance(table.get("kind"), str):
            raise ValueError("sampling.sampler.kind must be a word, such as ddim")
        return table

    @property
    def guidance_interval(self) -> Interval | None:
        """The σ/α between which there is guidance; None where it is everywhere."""
        low, high = self.guidance_low, self.guidance_high
        return None if low is None and high is None else (low or 0.0, math.inf if high is None else high)

    def changed(
        self,
        *,
        sampler: str | None = None,
        steps: int | None = None,
        grid: str | None = None,
        eta: float | None = None,
        variance: str | None = None,
        guidance: float | None = None,
        by_other: bool = False,
    ) -> SamplingOptions:
        """These options with a few of them changed; what belongs together changes together.

        Args:
            sampler: A name. Settings of another sampler are dropped. Default: "ddim" where `eta` is given,
                "ancestral" where `variance` is given, otherwise the sampler of these options.
            steps: Steps of the grid; a grid of all levels then becomes uniform.
            grid: A name, or counts of sections such as "10,15,20".
            eta: DDIM's η, 0 (deterministic) to 1 (ancestral).
            variance: Of ancestral sampling: "lower", "upper" or "learned".
            guidance: The scale.
            by_other: Whether another model guides, a classifier or a weaker model: a scale in these options is not meant
                for it.

        Raises:
            InputError: For changes that contradict each other.
        """
        if sampler is None and eta is not None and variance is not None:
            raise InputError("eta belongs to DDIM and variance to ancestral sampling: remove one of them")
        if sampler is None and (eta is not None) != (variance is not None):
            sampler = "ddim" if eta is not None else "ancestral"  # each says which sampler is meant
        was = self.sampler["kind"]
        table: dict[str, object] = dict(self.sampler) if sampler in (None, was) else {"kind": sampler}
        table |= {name: value for name, value in (("eta", eta), ("variance", variance)) if value is not None}
        if grid is not None and steps is not None and (grid == "full" or "," in grid or grid.isdecimal()):
            raise InputError(f"the grid {grid} fixes the number of steps: remove steps", command="--steps")
        changes: dict[str, object] = {"sampler": table, "grid": self.grid if grid is None else grid}
        changes["steps"] = (None if grid == "full" else self.steps) if steps is None else steps
        changes["guidance"] = self.guidance if guidance is None and not by_other else guidance
        if steps is not None and grid is None and self.grid == "full":
            changes["grid"] = "uniform"
        now = table["kind"]
        if now == "langevin" != was:
            changes |= {"grid": grid or "staircase", "steps": steps}
        elif was == "langevin" != now:
            changes |= {"grid": grid or "uniform", "start": "prior"}
        return self.model_copy(update=changes)


def build_grid(options: SamplingOptions, process: Process) -> torch.Tensor:
    """The grid by its name, "full", "staircase", or the published respacing written as counts: "10,15,20"."""
    name = options.grid
    if name == FITTED:
        raise InputError(
            "a fitted grid belongs to the weights of a run and is made where the run is sampled: use sf.Run(run).sample(..., "
            'grid="fitted"), or sf.grids.fitted(model, n), or the name of another grid here',
            command="scorefield sample RUN --grid fitted",
        )
    if name == "staircase":
        count = options.levels if options.steps is None else _stairs(options.steps, options.repeats)
        return staircase(
            process, options.repeats, None if count is None else GRIDS["uniform"](process, count)
        )
    if name == "full" or (options.steps is None and name in _EVEN and process.is_discrete):
        return full(process)
    if options.steps is None and name in GRIDS:
        where = "" if process.is_discrete else " in continuous time"
        raise InputError(
            f"grid {name!r} needs a number of steps{where}: give steps, or steps beside it in [sampling]",
            command="--steps K",
        )
    if name in GRIDS and options.steps is not None:
        return GRIDS[name](process, options.steps)
    return sections(process, _counts(name))


def _counts(name: str) -> list[int]:
    """The counts of a grid of sections, such as "10,15,20". InputError for what is neither these nor a grid's name."""
    counts = [count for word in name.split(",") if (count := whole_number(word)) is not None]
    if len(counts) == len(name.split(",")):
        return counts
    known = ["full", "staircase", *GRIDS, FITTED]
    raise InputError(
        f"grid must be one of {', '.join(known)}, or counts of sections such as 10,15,20; got {name!r}{did_you_mean(name, known)}"
    )


def check_grid(name: str) -> None:
    """InputError for what is no grid, of a model without levels too, which needs none."""
    if name not in ("full", "staircase", *GRIDS, FITTED):
        _counts(name)


def _stairs(updates: int, repeats: int) -> int:
    """The number of levels that make this number of updates."""
    if updates % repeats:
        raise InputError(
            f"this staircase has {repeats} updates per level, so steps must be a multiple of {repeats}; got "
            f"{updates}"
        )
    return updates // repeats
