"""The loop that every sampler shares: a sampler is a pure step over an interval, a trajectory is a generator of steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from scorefield.core.errors import IncompatibleModel, InputError
from scorefield.core.noise import Noise, NoiseSource, fresh_seed
from scorefield.denoiser import Denoise
from scorefield.samplers.grids import as_grid

__all__ = ["Grid", "Sampler", "Step", "need_levels", "sample", "trajectory"]

Grid = Tensor | Sequence[float]


class Step(NamedTuple):
    """What one step did: x at time s, made from time t, and the prediction x̂0 it was made with (x where there are no levels)."""

    t: float
    s: float
    x: Tensor
    x0: Tensor


class Sampler(Protocol):
    """How is x_s made from x_t? Pure steps, the state explicit. `noise` already belongs to this step."""

    def calls(self, grid: Grid) -> int:
        """Network calls on this grid; InputError when this sampler cannot walk it."""
        ...

    def init(self, model: Any, x: Tensor) -> Any:
        """The state before the first step; IncompatibleModel when the model lacks what the sampler needs."""
        ...

    def step(self, model: Any, x_t: Tensor, t: float, s: float, state: Any, noise: Noise) -> tuple[Tensor, Tensor, Any]:
        """(x_s, the x̂0 behind it, the next state)."""
        ...


def trajectory(model: Any, sampler: Sampler, grid: Grid, x: Tensor, noise: Noise | None = None) -> Iterator[Step]:
    """Walk x along the grid, yielding every step; the i-th step draws from noise.at(i). Bad pieces raise here, not later.

    x: (B, *) at the grid's first time.   grid: of times, or `grids.steps(n)` for a score without noise levels.
    noise: where the draws come from; a fresh seed if not given.
    """
    if not torch.is_floating_point(x):
        raise InputError(f"x must be floating point, got {x.dtype}")
    state = sampler.init(model, x)
    times = as_grid(getattr(model, "process", None), grid)
    sampler.calls(times)
    return _walk(model, sampler, times, x, state, noise or NoiseSource(fresh_seed()))


def sample(
    model: Any, sampler: Sampler, grid: Grid, n: int | None = None, noise: Noise | None = None, *, x_T: Tensor | None = None
) -> Tensor:
    """Samples of a model, (n, *) in the model's data range: the last state of the trajectory.

    Starts from x_T (B, *) where given, otherwise from n draws of the process's prior at step 0 of `noise`. Run the model in
    evaluation mode: dropout that is left on stays on.
    """
    noise = noise or NoiseSource(fresh_seed())
    if x_T is None:
        x_T = _start(model, n, noise)
    elif n is not None and n != x_T.shape[0]:
        raise InputError(f"n = {n} disagrees with the {x_T.shape[0]} examples of x_T: give one of them")
    x = x_T
    for step in trajectory(model, sampler, grid, x, noise):
        x = step.x
    return x


def need_levels(sampler: object, model: Any) -> None:
    """IncompatibleModel unless the model predicts x̂0 at noise levels."""
    if not isinstance(model, Denoise):
        raise IncompatibleModel(
            f"{type(sampler).__name__} needs a model with noise levels, and {type(model).__name__} has a score only: sample it with "
            "Langevin, or train it at noise levels (for example sf.process.geometric_sigmas and sf.objectives.NCSN)"
        )


def _walk(model: Any, sampler: Sampler, times: Sequence[float], x: Tensor, state: Any, noise: Noise) -> Iterator[Step]:
    for i, (t, s) in enumerate(pairwise(times), start=1):
        with torch.no_grad():
            x, x0, state = sampler.step(model, x, t, s, state, noise.at(i))
        yield Step(t, s, x, x0)


def _start(model: Any, n: int | None, noise: Noise) -> Tensor:
    if n is None or isinstance(n, bool) or n < 1:
        raise InputError(f"give the number of samples n ≥ 1, or x_T to start from; got n = {n!r}")
    if not hasattr(model, "process"):
        raise IncompatibleModel(
            f"{type(model).__name__} has a score without noise levels, so there is no prior to start from: sample it with "
            "Langevin from an x_T of yours"
        )
    data = getattr(model, "data", None)
    if data is None:
        raise InputError(
            "this model does not say what one example is: build it with Denoiser(..., data=sf.DataSpec(shape)) or give x_T"
        )
    return model.process.prior((n, *data.shape), noise.at(0)).to(getattr(model, "device", "cpu"))
