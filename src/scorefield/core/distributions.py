"""Distributions over data dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.core.shapes import DataSpec, sum_flat

__all__ = ["CDFS", "Normal", "discretized_log_prob"]

CDFS = ("exact", "tanh")
# The published code's floor under probabilities, of "tanh" only: 27.6 nats.
_FLOOR = 1e-12
# How far, in bins, a value may lie from its level: far above float32 rounding, far below any real mistake.
_OFF_GRID = 1e-3
_ROOT2 = math.sqrt(2)


@dataclass(frozen=True, slots=True)
class Normal:
    """N(mean, var) with independent dimensions. mean, var: (B, *), var broadcastable to mean; var = 0 is a point mass."""

    mean: Tensor
    var: Tensor

    @property
    def std(self) -> Tensor:
        return self.var.sqrt()

    def sample(self, z: Tensor) -> Tensor:
        """mean + std · z for a standard normal z of mean's shape."""
        return self.mean + self.std * z

    def log_prob(self, x: Tensor) -> Tensor:
        """ln N(x; mean, var) in nats, summed over dimensions: (B,)."""
        terms = (x - self.mean) ** 2 / self.var + self.var.log() + math.log(2 * math.pi)
        return -0.5 * sum_flat(terms)

    def kl(self, other: Normal) -> Tensor:
        """KL(self ‖ other) in nats, summed over dimensions: (B,)."""
        ratio = self.var / other.var
        terms = ratio - 1 - ratio.log() + (self.mean - other.mean) ** 2 / other.var
        return 0.5 * sum_flat(torch.broadcast_to(terms, self.mean.shape))


def discretized_log_prob(x: Tensor, p: Normal, data: DataSpec, cdf: str = "exact") -> Tensor:
    """ln P(x) of a Gaussian whose mass is collected in bins around the data's levels, nats, summed: (B,).  [DDPM Eq. 13]

    P(x) = Φ((x − m + h)/s) − Φ((x − m − h)/s), half-width h = (high − low)/(2(bins − 1)); the lowest and the highest bin are
    open-ended, so the probabilities of all levels sum to 1.

    x: (B, *) on the grid of `data`.   cdf: "exact" (in log space: no floor, finite however far the mean), or "tanh", the
    published code's approximation of Φ (error up to 1.8e-4) with its floor of 1e-12.
    Raises InputError for data without bins, for values off the grid, and for another cdf.
    """
    if cdf not in CDFS:
        raise InputError(f"cdf must be one of {', '.join(CDFS)}; got {cdf!r}")
    level, last = _levels(x, data), _bins(data) - 1
    half = (data.range[1] - data.range[0]) / (2 * last)
    log_prob = _log_mass_exact if cdf == "exact" else _log_mass_tanh
    return sum_flat(log_prob(x - p.mean, half, p.std, level == 0, level == last))


def _bins(data: DataSpec) -> int:
    if data.bins is None:
        raise InputError(
            'the discretized decoder is for quantized data, and this data has no bins: use decoder="density", or give '
            "sf.DataSpec(..., bins=256) for 8-bit images"
        )
    return data.bins


def _levels(x: Tensor, data: DataSpec) -> Tensor:
    """The level 0 … bins − 1 of every value; InputError for values between levels or outside the range."""
    bins, (low, high) = _bins(data), data.range
    position = (x - low) * ((bins - 1) / (high - low))
    level = position.round()
    bad = ~((position - level).abs() <= _OFF_GRID) | (level < 0) | (level > bins - 1)
    if bool(bad.any()):
        raise InputError(
            f"the data must lie on its grid of {bins} bins from {low:g} to {high:g}, and {int(bad.sum())} of {bad.numel()} values do "
            f'not, the first is {float(x[bad][0]):g}: give quantized data, set the right bins, or use decoder="density"'
        )
    return level


def _log_mass_exact(delta: Tensor, half: float, std: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """ln(Φ((δ + h)/s) − Φ((δ − h)/s)) without a difference of nearly equal numbers."""
    distance = delta.abs()
    near, far = (half - distance) / std, (half + distance) / std
    # The mean inside the bin: a sum of two positive areas, one on each side of it.
    around = _safe_log((torch.erf(near.clamp_min(0) / _ROOT2) + torch.erf(far / _ROOT2)) / 2)
    # The mean outside: mirrored into the lower tail, ln Φ(a) + ln(1 − Φ(b)/Φ(a)) with a = near < 0, b = −far, b² − a² = 4hδ/s².
    a = near.clamp_max(0)
    log_ratio = _log_scaled(-far) - _log_scaled(a) - 2 * half * distance / std**2
    tail = _log_scaled(a) - a**2 / 2 + _safe_log(-torch.expm1(log_ratio))
    inside = torch.where(near > 0, around, tail)
    return torch.where(lowest, _log_cdf((delta + half) / std), torch.where(highest, _log_cdf((half - delta) / std), inside))


def _safe_log(x: Tensor) -> Tensor:
    """ln x, finite at 0 with gradient 0: a branch of `where` that is not taken must not turn the other one into NaN."""
    return x.clamp_min(torch.finfo(x.dtype).tiny).log()


def _log_scaled(z: Tensor) -> Tensor:
    """ln Φ(z) + z²/2 for z ≤ 0: a slowly varying function, so that the tails keep their digits."""
    return (torch.special.erfcx(-z / _ROOT2) / 2).log()


def _log_cdf(z: Tensor) -> Tensor:
    """ln Φ(z). Not torch.special.log_ndtr, whose float32 gradient is off by several per cent where z < −50."""
    low, high = z.clamp_max(0), z.clamp_min(0)
    return torch.where(z < 0, _log_scaled(low) - low**2 / 2, torch.log1p(-torch.erfc(high / _ROOT2) / 2))


def _log_mass_tanh(delta: Tensor, half: float, std: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """The same with Φ(z) ≈ (1 + tanh(√(2/π)(z + 0.044715 z³)))/2 and floors, as in the published code."""
    below, under = _tanh_cdf((delta + half) / std), _tanh_cdf((delta - half) / std)
    mass = torch.where(lowest, below, torch.where(highest, 1 - under, below - under))
    return mass.clamp_min(_FLOOR).log()


def _tanh_cdf(z: Tensor) -> Tensor:
    return (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) / 2
