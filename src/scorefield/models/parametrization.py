"""What a network's output F means: x̂0 = c_skip·x_t + c_out·F(c_in·x_t), three coefficients for every
convention.

Prediction and regression target follow from the same coefficients: target = (x_0 − c_skip·x_t) / c_out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.process.base import GaussianProcess, Process, as_time
from scorefield.process.transitions import posterior_coefficients
from scorefield.runtime.errors import IncompatibleModel
from scorefield.runtime.registry import NOISE_INPUTS, PARAMETRIZATIONS

__all__ = ["Affine", "coefficients", "describe_gaussian", "noise_at_T", "noise_input"]


class Affine(NamedTuple):
    """c_skip, c_out, c_in of x̂0 = c_skip·x_t + c_out·F(c_in·x_t): float64 CPU tensors in t's shape."""

    skip: Tensor
    out: Tensor
    inp: Tensor


Coefficients = Callable[[GaussianProcess, Tensor, float], Affine]


def eps(process: GaussianProcess, t: Tensor, sigma_data: float) -> Affine:
    """F = ε̂: x̂0 = (x_t − σ F)/α.  [DDPM Eq. 11]"""
    alpha, sigma = process.level(t)
    _need_signal(alpha, 'parametrization="eps"')
    return Affine(1 / alpha, -sigma / alpha, torch.ones_like(alpha))


def x0(process: GaussianProcess, t: Tensor, sigma_data: float) -> Affine:
    """F = x̂0."""
    alpha, _ = process.level(t)
    return Affine(torch.zeros_like(alpha), torch.ones_like(alpha), torch.ones_like(alpha))


def v(process: GaussianProcess, t: Tensor, sigma_data: float) -> Affine:
    """F = (α ε̂ − σ x̂0)/n at input x_t/n, n² = α² + σ²: the velocity of Salimans & Ho 2022, on any process."""
    alpha, sigma = process.level(t)
    n2 = alpha**2 + sigma**2
    return Affine(alpha / n2, -sigma / n2.sqrt(), 1 / n2.sqrt())


def score(process: GaussianProcess, t: Tensor, sigma_data: float) -> Affine:
    """F = ∇ log p_t(x_t): x̂0 = (x_t + σ² F)/α.  [NCSN Eq. 2, Tweedie]"""
    alpha, sigma = process.level(t)
    _need_signal(alpha, 'parametrization="score"')
    return Affine(1 / alpha, sigma**2 / alpha, torch.ones_like(alpha))


def _need_signal(alpha: Tensor, what: str, other: str = '"v" or "x0"') -> None:
    """IncompatibleModel where nothing of the data is left, so that dividing by α gives nothing."""
    if bool((alpha == 0).any()):
        raise IncompatibleModel(
            f"{what} divides by α, which is 0 at this time (the end of the process is pure noise): use {other}, or start "
            "the grid below T"
        )


def mean(process: GaussianProcess, t: Tensor, sigma_data: float) -> Affine:
    """F = the mean of p(x_{t−1} | x_t) = c_0 x̂0 + c_t x_t for neighbours of the training process.  [DDPM Eq.
    8]
    """
    if not process.is_discrete:
        raise IncompatibleModel(
            'a continuous process has no previous level, so "mean" has no meaning there; use "eps", "x0" or "v"'
        )
    c_0, c_t = posterior_coefficients(process.level(t), process.level(t - 1))
    return Affine(-c_t / c_0, 1 / c_0, torch.ones_like(c_0))


def edm(process: GaussianProcess, t: Tensor, sigma_data: float) -> Affine:
    """Unit-variance input and target for data of standard deviation σ_d: k² = α²σ_d² + σ².  [Karras et al.
    2022, Table 1]
    """
    alpha, sigma = process.level(t)
    k2 = alpha**2 * sigma_data**2 + sigma**2
    return Affine(alpha * sigma_data**2 / k2, sigma * sigma_data / k2.sqrt(), 1 / k2.sqrt())


def flow(process: GaussianProcess, t: Tensor, sigma_data: float) -> Affine:
    """F = ε̂ − x̂0, the velocity dx_t/dt of x_t = (1 − t) x_0 + t ε: x̂0 = (x_t − σ F)/(α + σ), on any process.
    [Lipman et al. 2023, Eq. 23; Liu et al. 2023, Eq. 1]
    """
    alpha, sigma = process.level(t)
    return Affine(1 / (alpha + sigma), -sigma / (alpha + sigma), torch.ones_like(alpha))


def coefficients(name: str, process: GaussianProcess, t: Tensor, sigma_data: float = 0.5) -> Affine:
    """The coefficients of parametrization `name` at t > 0, float64, in t's shape. Unknown names: InputError."""
    make: Coefficients = PARAMETRIZATIONS[name]
    return make(process, t, sigma_data)


def index(process: Process, t: Tensor) -> Tensor:
    _need_index(process, "index")
    return (t - 1).clamp_min(0)


def scaled(process: Process, t: Tensor) -> Tensor:
    return 1000 * t if process.levels is None else 1000 * (t - 1).clamp_min(0) / process.levels


def rank(process: Process, t: Tensor) -> Tensor:
    _need_index(process, "rank")
    rank = (process.T - t).round().long()
    if bool((rank != process.T - t).any()):
        raise IncompatibleModel('noise_input="rank" counts levels, so it is defined only at integer t')
    return rank


def _need_index(process: Process, name: str) -> None:
    if process.levels is None:
        raise IncompatibleModel(
            f'noise_input="{name}" counts levels, and a continuous process has none: use "scaled" or "log_sigma"'
        )


def log_sigma(process: Process, t: Tensor) -> Tensor:
    level = process.level(t)
    _need_signal(level.alpha, 'noise_input="log_sigma"', '"scaled"')
    return level.ratio.log() / 4


def noise_input(name: str, process: Process, t: Tensor, dtype: torch.dtype) -> Tensor:
    """What the network receives as c: "index" t − 1, "scaled" 1000(t − 1)/T, "rank" T − t, "log_sigma"
    ln(σ/α)/4.

    On a continuous process "scaled" is 1000 t, and the two that count levels are refused.

    Float32 for every x but float64 (then float64), never bf16, where t = 999 would become 1,000; int64 for
    "rank".
    """
    c: Tensor = NOISE_INPUTS[name](process, as_time(t))
    if c.dtype == torch.long and name == "rank":
        return c
    return c.to(torch.float64 if dtype == torch.float64 else torch.float32)


def noise_at_T(name: str, process: Process) -> tuple[float, torch.dtype]:
    """What the network receives as c at the noisiest level, and its dtype beside float32 x."""
    c = noise_input(name, process, torch.tensor(process.T), torch.float32)
    return c.item(), c.dtype


def describe_gaussian(process: GaussianProcess) -> str:
    """The levels of a process in words, such as "1000, σ/α from 0.01 to 157 (linear)"."""
    first, last = (float(process.level(t).ratio) for t in (process.t_min, process.T))
    return f"{process.T}, σ/α from {first:.3g} to {last:.3g} ({process.config['kind']})"
