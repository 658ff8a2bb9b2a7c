"""The loop that every sampler shares: a sampler is a pure step over an interval, a trajectory is a generator
of steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from scorefield.core.noise import Noise, NoiseSource, fresh_seed
from scorefield.models.base import as_gaussian, as_model
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.grids import as_grid

__all__ = ["Grid", "Sampler", "Step", "need_levels", "network_calls", "planned", "sample", "trajectory"]

Grid = Tensor | Sequence[float]


class Step(NamedTuple):
    """What one step did: x at time s, made from time t, and the prediction x̂0 it was made with (x where
    there are no levels).
    """

    t: float
    s: float
    x: Tensor
    x0: Tensor


class Sampler(Protocol):
    """How is x_s made from x_t? Pure steps, the state explicit. `noise` already belongs to this step.

    A sampler also says in an attribute `guidance` how its steps place the gradient that classifier guidance
    leaves in a
    Prediction: "eps" where they take `model(x_t, t).guided(t)`, "mean" where they shift the mean of their own
    step. One that does not say so is refused guided models.

    One of which `calls` can say only how many calls there are at most also has `calls_on(process, grid)`, see
    `network_calls`.

    One whose steps need to know the whole grid also has `plan(model, times, state)`: the state of `init` with
    what it takes from the grid, or a refusal. A sampler around another one passes it on by `planned`.
    """

    def calls(self, grid: Grid) -> int:
        """Network calls on this grid; InputError when this sampler cannot walk it."""
        ...

    def init(self, model: Any, x: Tensor) -> Any:
        """The state before the first step; IncompatibleModel when the model lacks what the sampler needs."""
        ...

    def step(
        self, model: Any, x_t: Tensor, t: float, s: float, state: Any, noise: Noise
    ) -> tuple[Tensor, Tensor, Any]:
        """(x_s, the x̂0 behind it, the next state)."""
        ...


def trajectory(
    model: Any, sampler: Sampler, grid: Grid, x: Tensor, noise: Noise | None = None
) -> Iterator[Step]:
    """Walk x along the grid, yielding every step; the i-th step draws from noise.at(i). Bad pieces raise
    here, not later.

    x: (B, *) at the grid's first time, integers where the model is of categories.   grid: of times, or
    `grids.steps(n)` for a score without noise levels.
    noise: where the draws come from; a fresh seed if not given.
    """
    process = as_model(model).process
    if x.ndim < 1 or not len(x):
        raise InputError(f"x must hold at least one example, (B, *); got shape {tuple(x.shape)}")
    if process is not None:
        process.check_states(x)
    elif not torch.is_floating_point(x):
        raise InputError(f"x must be floating point, got {x.dtype}")
    state = sampler.init(model, x)
    times = as_grid(process, grid)
    sampler.calls(times)
    _check_guidance(sampler, model, times)
    state = planned(sampler, model, times, state)
    return _walk(model, sampler, times, x, state, noise or NoiseSource(fresh_seed()))


def sample(
    model: Any,
    sampler: Sampler,
    grid: Grid,
    n: int | None = None,
    noise: Noise | None = None,
    *,
    x_T: Tensor | None = None,
) -> Tensor:
    """Samples of a model, (n, *) in the model's data range: the last state of the trajectory. Of categories
    they are integers.

    Starts from x_T (B, *) where given, otherwise from n draws of the process's prior at step 0 of `noise`.
    Run the model in evaluation mode: dropout that is left on stays on.
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


def network_calls(sampler: Sampler, process: Any, grid: Grid) -> int:
    """Network calls on this grid of this process, exactly; InputError when this sampler cannot walk it.
    process: None for a bare score.
    """
    exact = getattr(sampler, "calls_on", None)
    return sampler.calls(grid) if exact is None or process is None else int(exact(process, grid))


def planned(sampler: Sampler, model: Any, times: Sequence[float], state: Any) -> Any:
    """The state before the first step on this grid; that of `init` where the sampler does not ask for the
    grid.
    """
    plan = getattr(sampler, "plan", None)
    return state if plan is None else plan(model, times, state)


def need_levels(sampler: object, model: Any) -> None:
    """IncompatibleModel unless the model predicts x̂0 at noise levels."""
    as_gaussian(model, type(sampler).__name__, categorical="CategoricalAncestral or CategoricalDDIM")


def _check_guidance(sampler: object, model: Any, times: Sequence[float]) -> None:
    """IncompatibleModel where the guidance around this model would be ignored, or has no meaning on this
    grid.
    """
    asked = as_model(model)
    if not asked.guided:
        return
    if any(s > t for t, s in pairwise(times)):
        raise IncompatibleModel(
            "encoding walks the unguided flow upwards: encode, and decode, without guidance"
        )
    at, places, name = asked.grad_at, getattr(sampler, "guidance", None), type(sampler).__name__
    if at is not None and places is None:
        raise IncompatibleModel(
            f"{name} does not say how it places the gradient of a classifier, and would ignore it: let its steps take "
            'model(x_t, t).guided(t) and give it the attribute guidance = "eps", or use another sampler'
        )
    if at == "mean" and places != "mean":
        raise IncompatibleModel(
            f'{name} shifts ε̂ by the gradient at x_t, and has no mean at which to take it: guide with at="x_t", or sample with '
            "Ancestral"
        )


def _walk(
    model: Any, sampler: Sampler, times: Sequence[float], x: Tensor, state: Any, noise: Noise
) -> Iterator[Step]:
    for i, (t, s) in enumerate(pairwise(times), start=1):
        with torch.no_grad():
            x, x0, state = sampler.step(model, x, t, s, state, noise.at(i))
        yield Step(t, s, x, x0)


def _start(model: Any, n: int | None, noise: Noise) -> Tensor:
    if n is None or isinstance(n, bool) or n < 1:
        raise InputError(f"give the number of samples n ≥ 1, or x_T to start from; got n = {n!r}")
    asked = as_model(model)
    if asked.process is None:
        raise IncompatibleModel(
            f"{asked.kind} has a score without noise levels, so there is no prior to start from: sample it with "
            "Langevin from an x_T of yours"
        )
    if asked.data is None:
        raise InputError(
            "this model does not say what one example is: build it with Denoiser(..., data=sf.DataSpec(shape)) or give x_T"
        )
    return asked.process.prior((n, *asked.data.shape), noise.at(0)).to(asked.device)
