"""Processes with a level at every real t: the straight path of flow matching, the SDEs VP, sub-VP and VE, EDM, and a
table of levels read between its entries.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import softplus

from scorefield.core.prediction import Level
from scorefield.process.base import GaussianProcess, Time, as_log_ratio, as_time, check_moments
from scorefield.process.discrete import DiscreteProcess
from scorefield.runtime.checks import LARGEST, brief, number
from scorefield.runtime.description import recorded
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import build
from scorefield.runtime.registry import PROCESSES

__all__ = ["ContinuousProcess", "Interpolated", "edm", "flow", "sub_vp", "ve", "vp"]


# Where grids on an EDM process stop short of t = 0: σ is σ_min there to five digits and more.
_EDM_START = 1e-9


# Where ln r and asinh(r/2) are the same number.
_LARGE = 40.0


class ContinuousProcess(GaussianProcess):
    """0 ≤ t ≤ T real, level(0) = (1, 0). Grids run from T to t_min, the least noise a model is asked about,
    then to 0.
    """

    t_min: float

    @abstractmethod
    def time(self, log_ratio: Tensor) -> Tensor:
        """The t at which λ = ln(α/σ) has these values, the inverse of `level` on (0, T].

        Args:
            log_ratio: Values of λ, in any shape.

        Returns:
            float64, in the shape of log_ratio.
        """

    def level(self, t: Time) -> Level:
        time = as_time(t).double()
        outside = (time < 0) | (time > self.T)
        if bool(outside.any()):
            first = float(time.reshape(-1)[outside.reshape(-1)][0])
            raise InputError(
                f"t must lie in [0, {self.T:g}] (0 is the data, {self.T:g} the noisiest), got {first:g}"
            )
        return self._level(time)

    @abstractmethod
    def _level(self, t: Tensor) -> Level:
        """(α_t, σ_t) for float64 t within [0, T]."""


class _Flow(ContinuousProcess):
    """x_t = (1 − t) x_0 + t ε."""

    def __init__(self, t_min: float) -> None:
        self.T, self.t_min = 1.0, t_min

    def _level(self, t: Tensor) -> Level:
        return Level(1 - t, t.clone())

    def time(self, log_ratio: Tensor) -> Tensor:
        return torch.sigmoid(-as_log_ratio(log_ratio))


class _ContinuousVP(ContinuousProcess):
    """The SDE dx = −½ β(t) x dt + √β(t) dw with β(t) = β_min + t (β_max − β_min)."""

    def __init__(self, beta_min: float, beta_max: float, t_min: float) -> None:
        self.T, self.t_min = 1.0, t_min
        self._beta_min, self._beta_max = beta_min, beta_max

    def _level(self, t: Tensor) -> Level:
        integral = self._integral(t)
        return Level((-integral / 2).exp(), (-torch.expm1(-integral)).sqrt())

    def time(self, log_ratio: Tensor) -> Tensor:
        # ∫β = −ln α² = ln(1 + e^{−2λ})
        return self._time(softplus(-2 * as_log_ratio(log_ratio)))

    def _integral(self, t: Tensor) -> Tensor:
        """∫_0^t β = −2 ln α_t."""
        return t * self._beta_min + t**2 * (self._beta_max - self._beta_min) / 2

    def _time(self, integral: Tensor) -> Tensor:
        """The t at which ∫_0^t β has these values: the quadratic is solved in the form that does not cancel."""
        slope = self._beta_max - self._beta_min
        return 2 * integral / (self._beta_min + (self._beta_min**2 + 2 * slope * integral).sqrt())


class _SubVP(_ContinuousVP):
    """The SDE dx = −½ β(t) x dt + √(β(t)(1 − e^{−2∫β})) dw: σ_t = 1 − α_t² with the α_t of VP."""

    def _level(self, t: Tensor) -> Level:
        integral = self._integral(t)
        return Level((-integral / 2).exp(), -torch.expm1(-integral))

    def time(self, log_ratio: Tensor) -> Tensor:
        # r = σ/α = α^{−1} − α = 2 sinh(½∫β), so that ∫β tends to 2 ln r, which does not overflow.
        log_r = -as_log_ratio(log_ratio)
        return self._time(2 * torch.where(log_r > _LARGE, log_r, torch.asinh(log_r.exp() / 2)))


class _ContinuousVE(ContinuousProcess):
    """x_t = x_0 + σ_min (σ_max/σ_min)^t ε for t > 0."""

    def __init__(self, sigma_min: float, sigma_max: float, mean: float, std: float, t_min: float) -> None:
        self.T, self.t_min = 1.0, t_min
        self._sigma_min, self._sigma_max, self._mean, self._std = sigma_min, sigma_max, mean, std
        self.prior_mean, self.prior_std = mean, math.hypot(sigma_max, std)

    def _level(self, t: Tensor) -> Level:
        sigma = self._sigma_min * (self._sigma_max / self._sigma_min) ** t
        return Level(torch.ones_like(t), torch.where(t > 0, sigma, 0.0))

    def time(self, log_ratio: Tensor) -> Tensor:
        return (-as_log_ratio(log_ratio) - math.log(self._sigma_min)) / math.log(
            self._sigma_max / self._sigma_min
        )


class _EDM(ContinuousProcess):
    """x_t = x_0 + σ(t) ε with σ(t)^{1/ρ} linear in t > 0."""

    def __init__(self, sigma_min: float, sigma_max: float, rho: float, mean: float, std: float) -> None:
        self.T, self.t_min = 1.0, _EDM_START
        self._sigma_min, self._sigma_max, self._rho, self._mean, self._std = (
            sigma_min,
            sigma_max,
            rho,
            mean,
            std,
        )
        self._low, self._high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
        self.prior_mean, self.prior_std = mean, math.hypot(sigma_max, std)

    def _level(self, t: Tensor) -> Level:
        # Written as a mean, so that T has exactly the largest root.
        sigma = ((1 - t) * self._low + t * self._high) ** self._rho
        return Level(torch.ones_like(t), torch.where(t > 0, sigma, 0.0))

    def time(self, log_ratio: Tensor) -> Tensor:
        return ((-as_log_ratio(log_ratio) / self._rho).exp() - self._low) / (self._high - self._low)


class Interpolated(ContinuousProcess):
    """A discrete process at fractional t, so that an ODE can be solved with a model trained on its levels.

    λ = ln(α/σ) is linear between neighbouring levels of [1, T] and σ/α = t·σ_1/α_1 on (0, 1); a
    variance-preserving table stays variance preserving, a variance-exploding one keeps α = 1. Where α_T = 0,
    α is linear on [T − 1, T]. At t = 0, 1, …, T the levels are the table's own.

    Args:
        discrete: The process that is read between its levels, or a table {"kind": …} that describes it.
    """

    def __init__(self, discrete: DiscreteProcess | Mapping[str, object]) -> None:
        if isinstance(discrete, Mapping):
            discrete = build(PROCESSES, discrete, "process.discrete")
        if not isinstance(discrete, DiscreteProcess):
            raise InputError(
                f"Interpolated is for a process given by a table of levels, got {brief(discrete)}"
            )
        alpha, sigma = discrete.level(torch.arange(1, discrete.T + 1))
        self._exploding = bool((alpha == 1).all())
        if not self._exploding and not torch.allclose(
            alpha**2 + sigma**2, torch.ones_like(alpha), rtol=0, atol=1e-9
        ):
            raise InputError(
                "only variance-preserving (α² + σ² = 1) and variance-exploding (α = 1) tables can be interpolated"
            )
        if discrete.ends_in_noise and discrete.T == 1:
            raise InputError("one level of pure noise alone leaves nothing to interpolate")
        self.discrete = discrete
        self._before_noise = float(alpha[-2]) if discrete.ends_in_noise else 0.0  # α of T − 1
        self.T, self.t_min = float(discrete.T), 1.0
        self.prior_mean, self.prior_std = discrete.prior_mean, discrete.prior_std
        self._log_ratios = (alpha / sigma).log()  # of t = 1 … T, descending

    @property
    def levels(self) -> int | None:
        return self.discrete.T

    def _level(self, t: Tensor) -> Level:
        table = self._log_ratios
        below = t.floor().clamp(1, max(1, len(table) - 1)).long()
        above = (below + 1).clamp_max(len(table))
        share = (t - below).clamp_min(0)
        inside = (1 - share) * table[below - 1] + share * table[above - 1]
        log_ratio = torch.where(t < 1, table[0] - t.log(), inside)
        if self._before_noise:
            alpha = self._before_noise * (self.T - t).clamp_max(1)
            log_ratio = torch.where(
                t >= self.T - 1, (alpha / ((1 - alpha) * (1 + alpha)).sqrt()).log(), log_ratio
            )
        if self._exploding:
            return Level(torch.ones_like(t), (-log_ratio).exp())
        return Level(torch.sigmoid(2 * log_ratio).sqrt(), torch.sigmoid(-2 * log_ratio).sqrt())

    def time(self, log_ratio: Tensor) -> Tensor:
        table, value = self._log_ratios, as_log_ratio(log_ratio)
        near_data = (table[0] - value).exp()
        if len(table) == 1:
            return near_data.clamp_max(1)
        # Ascending −λ, so that searchsorted finds the interval [below, below + 1].
        below = torch.searchsorted(-table, -value, right=True).clamp(1, len(table) - 1)
        width = table[below - 1] - table[below]
        inside = (below + (table[below - 1] - value) / width).clamp_max(self.T)
        if self._before_noise:
            last = self.T - torch.sigmoid(2 * value).sqrt() / self._before_noise
            inside = torch.where(value < table[-2], last, inside)
        return torch.where(value > table[0], near_data, inside)


@recorded()
def flow(t_min: float = 1e-3) -> ContinuousProcess:
    """The straight path of flow matching and rectified flow, x_t = (1 − t) x_0 + t ε on 0 ≤ t ≤ 1.  [Lipman et al. 2023,
    Eq. 22; Liu et al. 2023, Eq. 1]

    α_t = 1 − t and σ_t = t, so that x_1 is noise alone and dx_t/dt = ε − x_0, which parametrization "flow" predicts.
    Both papers have noise at t = 0 and data at t = 1; here, as everywhere, t = 0 is the data.

    Args:
        t_min: Where grids and likelihoods stop short of the data, in (0, 1).
    """
    return _Flow(_check_start(t_min))


@recorded()
def vp(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> ContinuousProcess:
    """The variance-preserving process of dx = −½ β(t) x dt + √β(t) dw, β linear, on 0 ≤ t ≤ 1.  [Song et al.
    2021, Eq. 32–33]

    α_t = exp(−½ ∫β), σ_t² = 1 − α_t², ∫_0^t β = t β_min + ½ t² (β_max − β_min). linear(T, β_min/T, β_max/T) tends
    to it.

    Args:
        beta_min: β(0), positive.
        beta_max: β(1), at least beta_min.
        t_min: Where grids and likelihoods stop short of the data, in (0, 1).
    """
    _check_betas("a variance-preserving process", beta_min, beta_max)
    return _ContinuousVP(beta_min, beta_max, _check_start(t_min))


@recorded()
def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0, t_min: float = 1e-3) -> ContinuousProcess:
    """The sub-variance-preserving process of dx = −½ β(t) x dt + √(β(t)(1 − e^{−2∫β})) dw, β linear, on 0 ≤ t ≤ 1.
    [Song et al. 2021, Eq. 12, 29]

    α_t = exp(−½ ∫β) as of `vp`, and σ_t = 1 − α_t², never above the σ_t of `vp`.

    Args:
        beta_min: β(0), positive.
        beta_max: β(1), at least beta_min.
        t_min: Where grids and likelihoods stop short of the data, in (0, 1).
    """
    _check_betas("a sub-variance-preserving process", beta_min, beta_max)
    return _SubVP(beta_min, beta_max, _check_start(t_min))


@recorded()
def ve(
    sigma_min: float, sigma_max: float, mean: float = 0.0, std: float = 0.0, t_min: float = 1e-5
) -> ContinuousProcess:
    """The variance-exploding process σ_t = σ_min (σ_max/σ_min)^t on 0 < t ≤ 1, σ_0 = 0.  [Song et al. 2021,
    Eq. 30–31]

    Args:
        sigma_min: The limit of σ_t as t goes to 0, positive.
        sigma_max: σ_1.
        mean: Mean of the data; sampling starts from N(mean, σ_max² + std²).
        std: Standard deviation of the data.
        t_min: Where grids and likelihoods stop short of the data, in (0, 1).
    """
    _check_sigmas("a variance-exploding process", sigma_min, sigma_max)
    check_moments(mean, std)
    return _ContinuousVE(sigma_min, sigma_max, mean, std, _check_start(t_min))


@recorded()
def edm(
    sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0, mean: float = 0.0, std: float = 0.0
) -> ContinuousProcess:
    """x_t = x_0 + σ(t) ε, σ(t) = (σ_min^{1/ρ} + t (σ_max^{1/ρ} − σ_min^{1/ρ}))^ρ on 0 < t ≤ 1, σ(0) = 0.
    [Karras et al. 2022, Eq. 5]

    Times spaced evenly are the paper's time steps, so `grids.uniform` is its schedule; parametrization "edm"
    and noise_input "log_sigma" are the rest of it.

    Args:
        sigma_min: The limit of σ_t as t goes to 0, positive.
        sigma_max: σ_1.
        rho: How much finer the steps are near sigma_min, 1 for none.
        mean: Mean of the data; sampling starts from N(mean, σ_max² + std²).
        std: Standard deviation of the data.
    """
    _check_sigmas("an EDM process", sigma_min, sigma_max)
    number("rho, the power,", rho, at_least=0.01, at_most=1000)
    check_moments(mean, std)
    return _EDM(sigma_min, sigma_max, rho, mean, std)


def _check_betas(what: str, beta_min: float, beta_max: float) -> None:
    for name, value in (("beta_min", beta_min), ("beta_max", beta_max)):
        number(name, value, above=0, at_most=LARGEST)
    if not beta_min <= beta_max:
        raise InputError(f"{what} needs 0 < beta_min ≤ beta_max, got {beta_min} and {beta_max}")


def _check_start(t_min: float) -> float:
    return number("t_min, a time,", t_min, above=0, below=1)


def _check_sigmas(what: str, sigma_min: float, sigma_max: float) -> None:
    for name, value in (("sigma_min", sigma_min), ("sigma_max", sigma_max)):
        number(name, value, at_least=1 / LARGEST, at_most=LARGEST)
    if not sigma_min < sigma_max:
        raise InputError(f"{what} needs 0 < sigma_min < sigma_max, got {sigma_min} and {sigma_max}")
