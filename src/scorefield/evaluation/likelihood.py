"""Variational bound in bits per dimension with every term; the ODE likelihood of `flow` is exported here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.core.noise import Noise, check_noise
from scorefield.core.prediction import Level
from scorefield.evaluation.flow import OdeBits, OdeLikelihood, ode_bits_per_dim, ode_log_prob
from scorefield.models.base import CategoricalDenoise, CategoricalModel, Denoise
from scorefield.models.foreign import as_model
from scorefield.objectives.categorical_vlb import categorical_prior_term, categorical_term
from scorefield.objectives.vlb import Bound, bound_terms, prior_term
from scorefield.process.base import GaussianProcess, Process
from scorefield.process.transitions import Variance
from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.grids import as_grid, full

__all__ = [
    "BitsPerDim",
    "Estimate",
    "OdeBits",
    "OdeLikelihood",
    "bits_per_dim",
    "categorical_bits_per_dim",
    "estimate_bits_per_dim",
    "ode_bits_per_dim",
    "ode_log_prob",
    "prior_term",
]


_MOST_TERMS = 100_000


class BitsPerDim(NamedTuple):
    """The bound in bits per dimension, float64 on the CPU.

    Attributes:
        total: prior + Σ terms, (B,).
        prior: KL(q(x_T | x_0) ‖ p(x_T)), (B,).
        terms: (B, S), ascending in t, the decoder's term first.
    """

    total: Tensor
    prior: Tensor
    terms: Tensor


class Estimate(NamedTuple):
    """The bound from some of its terms, in bits per dimension, float64 on the CPU.

    Attributes:
        total: Unbiased for BitsPerDim.total, (B,).
        prior: Exact, (B,).
        error: Standard error of total from leaving terms out, (B,), rather too large than too small; it does
            not contain the spread between examples.
    """

    total: Tensor
    prior: Tensor
    error: Tensor


class _Steps(NamedTuple):
    """The steps of a grid in ascending order: times t and s < t, (S,), and the level over the first step's t,
    if there is one.
    """

    t: Tensor
    s: Tensor
    above: Level | None


def bits_per_dim(
    model: Denoise,
    x0: Tensor,
    noise: Noise,
    grid: Tensor | Sequence[float] | None = None,
    variance: Variance | None = None,
    cdf: str = "exact",
    decoder: str = "discretized",
    eta: float | None = None,
) -> BitsPerDim:
    """An upper bound on −log₂ p(x_0)/D: prior + Σ over the grid's steps + decoder.  [DDPM Eq. 5; Improved
    DDPM Eq. 4–7]

    Args:
        model: Any Denoise; S calls for S steps. Clip x̂0 with sf.guidance.ClipX0(model), as the published
            evaluation does. Of guidance the gradient of a classifier is ignored.
        x0: (B, *) in the model's range; on the bins of the model's `data` for decoder="discretized".
        noise: One draw of x0's shape per step, in ascending t: noise.at(k), k = 1 for the decoder.
        grid: From T down to 0. Default: every level.
        variance: "lower", "upper" or "learned". Default: "learned" where the model has a variance head,
            otherwise "upper".
        cdf: See `Bound`.
        decoder: "discretized"; "density" is for continuous data: the density of x_0 under p(x_0 | x_1), so
            that total bounds −log₂ of a density and may be negative. With a fixed variance it takes β_1 at t = 1,
            σ²_{1|0}, the variance of x_0 given x_1 where the data look flat; "lower" would be 0 there.
        eta: η in (0, 1] for the bound of DDIM's family on this grid, in the place of a variance [DDIM Theorem 1]; 1 is
            variance="lower". At η = 0 p(x_s | x_t) has no variance, and the bound is infinite.
    Returns:
        The bound and its terms.
    """
    as_model(model).refuse_missing()
    check_noise(noise)
    bound, steps = Bound.of(model, variance, decoder, cdf, eta), _ascending(model.process, grid)
    with torch.no_grad():
        columns = [
            _term(model, x0, noise.at(k + 1), bound, steps, torch.tensor(k)) for k in range(len(steps.t))
        ]
        prior = _bits(prior_term(model.process, x0, steps.t[-1]), x0)
    terms = torch.stack(columns, dim=1)
    return BitsPerDim(prior + terms.sum(dim=1), prior, terms)


def categorical_bits_per_dim(
    model: CategoricalDenoise, x0: Tensor, noise: Noise, grid: Tensor | Sequence[float] | None = None
) -> BitsPerDim:
    """An upper bound on −log₂ p(x_0)/D of a model of categories: prior + Σ over the grid's steps.  [D3PM Eq.
    1]

    The model is the chain of CategoricalAncestral on this grid; the first of `terms` is −log₂ p(x_0 | x_1)/D,
    the decoder's.

    Args:
        model: A CategoricalDenoiser, or one at given labels; S calls for S steps.
        x0: Values on the data's bins, or integers, (B, *).
        noise: One uniform draw of x0's shape per step, in ascending t: noise.at(k), k = 1 for the decoder.
        grid: From T down to 0. Default: every level.
    Returns:
        The bound and its terms.
    """
    asked = as_model(model)
    if not isinstance(asked, CategoricalModel):
        raise IncompatibleModel(
            f"{asked.kind} is not a categorical model: its bound is sf.likelihood.bits_per_dim(model, x0, noise)"
        )
    asked.refuse_missing()
    check_noise(noise)
    process, steps, columns = model.process, _descending(model.process, grid).flip(0), []
    levels = asked.categories(x0)
    with torch.no_grad():
        for k, (s, t) in enumerate(pairwise(steps.tolist()), start=1):
            x_t = process.sample(levels, t, noise.at(k).uniform(x0.shape))
            columns.append(_bits(categorical_term(process, model(x_t, t), x_t, levels, t, s), x0))
        prior = _bits(categorical_prior_term(process, levels, float(steps[-1])), x0)
    terms = torch.stack(columns, dim=1)
    return BitsPerDim(prior + terms.sum(dim=1), prior, terms)


def estimate_bits_per_dim(
    model: Denoise,
    x0: Tensor,
    noise: Noise,
    terms: int,
    grid: Tensor | Sequence[float] | None = None,
    variance: Variance | None = None,
    cdf: str = "exact",
    decoder: str = "discretized",
) -> Estimate:
    """The bound of `bits_per_dim` from the decoder and some of the other steps, drawn for each example: terms
    + 1 calls.

    total = prior + decoder + (S − 1)·mean of the terms drawn, one from each of `terms` equal parts of the
    steps (terms change a thousandfold with t, so that draws from all of them would need many times as many
    calls). Its standard error over a data set is the spread of `total` over the examples divided by √N, which
    contains both errors.

    Args:
        model: As in `bits_per_dim`.
        x0: As in `bits_per_dim`.
        noise: noise.at(k) gives a uniform draw (B, 1) that picks a step, then the ε of it.
        terms: How many steps are drawn, at least 2.
        grid: As in `bits_per_dim`.
        variance: As in `bits_per_dim`.
        cdf: As in `bits_per_dim`.
        decoder: As in `bits_per_dim`.
    Returns:
        The estimate and its error.
    """
    check_noise(noise)
    positive_int("terms", terms, at_least=2, at_most=_MOST_TERMS)  # fewer have no standard error
    as_model(model).refuse_missing()
    bound, steps = Bound.of(model, variance, decoder, cdf), _ascending(model.process, grid)
    others = len(steps.t) - 1
    if others < 1:
        raise InputError("a grid of one step has no terms to draw from: use bits_per_dim")
    drawn = []
    with torch.no_grad():
        last = _term(model, x0, noise.at(0), bound, steps, torch.tensor(0))
        for k in range(1, terms + 1):
            draws = noise.at(k)
            u = draws.uniform((x0.shape[0], 1))[:, 0].double()
            index = ((k - 1 + u) / terms * others).long().clamp_max(others - 1)
            drawn.append(_term(model, x0, draws, bound, steps, 1 + index))
        prior = _bits(prior_term(model.process, x0, steps.t[-1]), x0)
    values = torch.stack(drawn, dim=1)
    error = others / terms * _stratified_error(values)
    return Estimate(prior + last + others * values.mean(dim=1), prior, error)


def _stratified_error(values: Tensor) -> Tensor:
    """The standard error of the sum of one draw from each of neighbouring strata, (B, K) -> (B,).

    A stratum with one draw shows no spread, so neighbours are taken together, in pairs and a last three where
    K is odd. Their means differ, so this is too large on average rather than too small.  [Cochran 1977
    §5A.12]
    """
    pairs = values.shape[1] // 2 - values.shape[1] % 2
    groups = [*values[:, : 2 * pairs].split(2, dim=1), values[:, 2 * pairs :]]
    return (
        torch.stack([group.shape[1] * group.var(dim=1) for group in groups if group.shape[1]])
        .sum(dim=0)
        .sqrt()
    )


def _descending(process: Process, grid: Tensor | Sequence[float] | None) -> Tensor:
    """The times of a bound; every level if no grid is given."""
    times = torch.as_tensor(as_grid(process, full(process) if grid is None else grid))
    if bool((times.diff() >= 0).any()) or times[-1] != 0:
        raise InputError(f"a bound is summed over a grid that strictly descends to 0, got {times.tolist()}")
    return times


def _ascending(process: GaussianProcess, grid: Tensor | Sequence[float] | None) -> _Steps:
    times = _descending(process, grid).flip(0)
    # Without a grid time over the first step the process's own next level serves, as in sampling.
    above = times[2] if len(times) > 2 else times[1] + 1
    return _Steps(times[1:], times[:-1], process.level(above) if above <= process.T else None)


def _term(model: Denoise, x0: Tensor, draws: Noise, bound: Bound, steps: _Steps, k: Tensor) -> Tensor:
    """Terms number k, () or (B,), of the examples, in bits a dimension, (B,). Number 0 is the decoder's and
    comes alone.
    """
    process, t = model.process, steps.t[k]
    pred = model(process.sample(x0, t, draws.normal_like(x0)), t)
    above = steps.above if not k.any() else None  # matters where s = 0 only
    return _bits(bound_terms(pred, x0, process.level(steps.s[k]), bound, as_model(model).data, above), x0)


def _bits(nats: Tensor, x0: Tensor) -> Tensor:
    return nats.cpu().double() / (x0[0].numel() * math.log(2))
