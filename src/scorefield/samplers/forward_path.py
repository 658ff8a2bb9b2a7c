"""Paths of the forward process, q(x_{1:T} | x_0): the chain of single steps, or DDIM's joint distribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from torch import Tensor

from scorefield.core.noise import Noise, as_noise
from scorefield.core.shapes import check_batch_of, check_real, expand
from scorefield.process.base import GaussianProcess, Process, check_process
from scorefield.process.categorical import CategoricalProcess
from scorefield.runtime.checks import brief, check_finite, number
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.base import Grid, Step
from scorefield.samplers.grids import as_grid

__all__ = ["forward"]


def forward(
    process: Process, x0: Tensor, grid: Grid, noise: Noise | None = None, eta: float | None = None
) -> Iterator[Step]:
    """A path of q(x_{1:T} | x_0) on a grid from 0 upwards; the i-th step draws from noise.at(i).

    Without η it is the Markov chain x_t ~ q(x_t | x_s) of `process.transition`.  [DDPM Eq. 2; D3PM Eq. 2]

    With η it is DDIM's joint distribution, whose q(x_t | x_0) are the same and whose
    q(x_s | x_t, x_0) = N(α_s x_0 + √(σ_s² − ς²)·(x_t − α_t x_0)/σ_t, ς² I) has the ς of `sf.samplers.DDIM`.  [DDIM Eq.
    6–7] Given x_0 the noises ε_t = (x_t − α_t x_0)/σ_t of neighbouring times have the correlation
    ρ = √(1 − ς²/σ_s²) = √(1 − η²σ²_{t|s}/σ_t²), so that upwards ε_t = ρ ε_s + √(1 − ρ²) z, by Bayes' rule.  [DDIM Eq.
    8] η = 1 has the distribution of the Markov chain; at η = 0 one ε serves at every t.

    Args:
        process: Any process.
        x0: x_0, (B, *); integers where the process is categorical.
        grid: Times that strictly ascend from 0, such as `sf.grids.full(process).flip(0)`.
        noise: Where the draws come from. Default: a fresh seed.
        eta: η in [0, 1]; None for the Markov chain, the only one for a categorical process.

    Returns:
        An iterator of steps from t up to s > t: x at s, and x_0.

    Raises:
        InputError: For data, a grid, noise or an η that do not fit, before the first step.
        IncompatibleModel: For an η of a categorical process.
    """
    check_process(process)
    times, noise = _upwards(process, grid), as_noise(noise)
    if isinstance(process, CategoricalProcess):
        if eta is not None:
            raise IncompatibleModel(
                "eta is of a Gaussian process: for categories draw x_T by process.sample, then downwards from "
                "process.family(x_t, Categorical.at(x0, classes), t, s, eta)"
            )
        process.check_states(x0)
        return _categorical_chain(process, x0, times, noise)
    if not isinstance(process, GaussianProcess):
        raise IncompatibleModel(f"forward needs a Gaussian or a categorical process, got {brief(process)}")
    check_batch_of("x0", x0)
    check_real("x0", x0)
    check_finite(x0, "examples of x0", "remove them first")
    if eta is None:
        return _chain(process, x0, times, noise)
    return _joint(process, x0, times, noise, number("η", eta, at_least=0, at_most=1))


def _upwards(process: Process, grid: Grid) -> Sequence[float]:
    times = as_grid(process, grid)
    if times[0] != 0 or any(s <= t for t, s in pairwise(times)):
        raise InputError(
            f"the forward process starts from the data: its grid strictly ascends from 0, got {brief(times)} "
            "(flip a grid of sf.grids by .flip(0))"
        )
    return times


def _chain(process: GaussianProcess, x0: Tensor, times: Sequence[float], noise: Noise) -> Iterator[Step]:
    x = x0
    for i, (t, s) in enumerate(pairwise(times), start=1):
        factor, var = process.transition(s, t)
        x = expand(factor, x) * x + expand(var.sqrt(), x) * noise.at(i).normal_like(x)
        yield Step(t, s, x, x0)


def _joint(
    process: GaussianProcess, x0: Tensor, times: Sequence[float], noise: Noise, eta: float
) -> Iterator[Step]:
    eps = noise.at(1).normal_like(x0)
    for i, (t, s) in enumerate(pairwise(times), start=1):
        alpha, sigma = process.level(s)
        if i > 1:
            _, var = process.transition(s, t)
            new = (eta**2 * var / sigma**2).clamp_max(1)  # 1 − ρ²
            eps = expand((1 - new).sqrt(), x0) * eps
            eps = eps + expand(new.sqrt(), x0) * noise.at(i).normal_like(x0)
        yield Step(t, s, expand(alpha, x0) * x0 + expand(sigma, x0) * eps, x0)


def _categorical_chain(
    process: CategoricalProcess, x0: Tensor, times: Sequence[float], noise: Noise
) -> Iterator[Step]:
    x = x0
    for i, (t, s) in enumerate(pairwise(times), start=1):
        x = process.transition(x, s, t).sample(noise.at(i).uniform(x.shape))
        yield Step(t, s, x, x0)
