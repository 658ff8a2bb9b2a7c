"""How a model is sampled, as options: sampler, grid, start and clipping, from their names to objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field

from scorefield.core.errors import InputError
from scorefield.core.noise import Noise
from scorefield.core.options import Options, build, did_you_mean
from scorefield.denoiser import Denoiser
from scorefield.guidance import ClipX0
from scorefield.process import ContinuousProcess, GaussianProcess
from scorefield.samplers import DDIM, Ancestral, Euler, Heun, Langevin, Sampler
from scorefield.samplers.grids import GRIDS, full, sections, staircase, steps
from scorefield.score_model import ScoreModel

__all__ = ["SAMPLERS", "Sampling", "SamplingOptions", "build_grid", "build_sampling"]

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ancestral": Ancestral,
    "ddim": DDIM,
    "euler": Euler,
    "heun": Heun,
    "langevin": Langevin,
}


class SamplingOptions(Options):
    """How this model is sampled unless the command says otherwise.

    steps: network calls, every level if None; updates of a score without levels, 1,000 if None.
    clip: x̂0 to the data's range.   start: "prior", or "uniform" over the data's range (NCSN).
    grid "staircase" (annealed Langevin): `repeats` updates at each of `levels` evenly spaced levels, all of them if None; or as
    many levels as make `steps` updates.   Langevin without a `step` has NCSN's, 0.4 (σ/α)² of the first level.
    """

    sampler: dict[str, Any] = {"kind": "ddim"}
    grid: str = "uniform"
    steps: int | None = Field(None, ge=1)
    repeats: int = Field(1, ge=1)
    levels: int | None = Field(None, ge=1)
    start: Literal["prior", "uniform"] = "prior"
    clip: bool = True


class Sampling(NamedTuple):
    """What SamplingOptions describe. wrap: goes around the model once its labels are bound.   start: None for the prior."""

    sampler: Sampler
    grid: torch.Tensor
    wrap: Callable[[Any], Any]
    start: Callable[[Sequence[int], Noise], torch.Tensor] | None


def build_sampling(options: SamplingOptions, model: Denoiser | ScoreModel) -> Sampling:
    """Sampler, grid, clipping and start for this model."""
    sampler: Sampler = build(SAMPLERS, _with_step(options.sampler, model), "sampling.sampler")
    grid = steps(options.steps or 1000) if isinstance(model, ScoreModel) else build_grid(options, model.process)
    clip = options.clip and not isinstance(model, ScoreModel)
    start = _uniform_start(model) if options.start == "uniform" or isinstance(model, ScoreModel) else None
    return Sampling(sampler, grid, ClipX0 if clip else lambda wrapped: wrapped, start)


def build_grid(options: SamplingOptions, process: GaussianProcess) -> torch.Tensor:
    """The grid by its name, "full", "staircase", or the published respacing written as counts: "10,15,20"."""
    name = options.grid
    if name == "staircase":
        count = options.levels if options.steps is None else _stairs(options.steps, options.repeats)
        return staircase(process, options.repeats, None if count is None else GRIDS["uniform"](process, count))
    if name == "full" or (options.steps is None and name in GRIDS):
        return full(process)
    if name in GRIDS and options.steps is not None:
        return GRIDS[name](process, options.steps)
    if all(count.isdecimal() for count in name.split(",")):
        return sections(process, [int(count) for count in name.split(",")])
    known = ["full", "staircase", *GRIDS]
    raise InputError(
        f"grid must be one of {', '.join(known)}, or counts of sections such as 10,15,20; got {name!r}{did_you_mean(name, known)}"
    )


def _with_step(sampler: Mapping[str, Any], model: Denoiser | ScoreModel) -> Mapping[str, Any]:
    """The table of a Langevin sampler without a step, with the ratio of NCSN's settings, 4e-5 at σ = 0.01.  [NCSN §5]"""
    if sampler.get("kind") != "langevin" or "step" in sampler or isinstance(model, ScoreModel):
        return sampler
    process = model.process
    first = process.level(process.t_min if isinstance(process, ContinuousProcess) else 1)
    return {**sampler, "step": 0.4 * float(first.sigma / first.alpha) ** 2}


def _stairs(updates: int, repeats: int) -> int:
    """How many levels make so many updates."""
    if updates % repeats:
        raise InputError(
            f"this staircase has {repeats} updates a level, so its steps must be a multiple of {repeats}; got {updates}"
        )
    return updates // repeats


def _uniform_start(model: Denoiser | ScoreModel) -> Callable[[Sequence[int], Noise], torch.Tensor]:
    low, high = model.data.range if model.data is not None else (-1.0, 1.0)
    return lambda shape, noise: low + (high - low) * noise.uniform(shape)
