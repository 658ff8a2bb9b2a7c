"""Distributions over data dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec, sum_flat
from scorefield.runtime.checks import one_of
from scorefield.runtime.errors import InputError

__all__ = ["CDFS", "LOG_ZERO", "Categorical", "Normal", "discretized_log_prob"]

CDFS = ("exact", "tanh")
# ln 0 of categories: finite, because a gradient through −∞ is NaN; e to its power is 0, and sums of a few fit
# float32.
LOG_ZERO = -1e30
# The published code's floor under probabilities, of "tanh" only: 27.6 nats.
_FLOOR = 1e-12
_ROOT2 = math.sqrt(2)


@dataclass(frozen=True, slots=True)
class Normal:
    """N(mean, var) with independent dimensions. mean, var: (B, *), var broadcastable to mean; var = 0 is a
    point mass.
    """

    mean: Tensor
    var: Tensor

    @property
    def std(self) -> Tensor:
        """The standard deviation."""
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


@dataclass(frozen=True, slots=True)
class Categorical:
    """Cat(p) with independent dimensions.

    Attributes:
        log_p: ln p of the S categories, normalized, (B, S, *); ln 0 is `LOG_ZERO`.
    """

    log_p: Tensor

    @classmethod
    def of(cls, logits: Tensor) -> Categorical:
        """p ∝ exp(logits), for logits (B, S, *)."""
        # ln p relative to the likeliest category, which stays out of the sum: next to its 1 the others would
        # lose their digits, and
        # a divergence between nearly certain distributions is made of these.
        best = logits.argmax(dim=1, keepdim=True)
        above = logits - logits.gather(1, best)
        return cls(above - torch.log1p(above.exp().scatter(1, best, 0.0).sum(dim=1, keepdim=True)))

    @classmethod
    def at(cls, x: Tensor, categories: int, dtype: torch.dtype = torch.float32) -> Categorical:
        """The point mass at x (B, *), integers 0 … categories − 1."""
        index = torch.arange(categories, device=x.device).reshape(1, -1, *[1] * (x.ndim - 1))
        return cls(torch.zeros((), dtype=dtype, device=x.device).where(index == x.unsqueeze(1), LOG_ZERO))

    @property
    def mode(self) -> Tensor:
        """The likeliest category of each dimension, int64 (B, *)."""
        return self.log_p.argmax(dim=1)

    def sample(self, u: Tensor) -> Tensor:
        """A draw by inverting the distribution function: the category whose share of [0, 1) holds u.

        A category of probability 0 is never drawn.

        Args:
            u: Uniform in [0, 1), (B, *).
        Returns:
            Categories, int64 (B, *).
        """
        below = self.log_p.exp().cumsum(dim=1)
        total = below[:, -1:]
        passed = (below <= u.to(below).unsqueeze(1) * total) & (below < total)
        return passed.sum(dim=1)

    def log_prob(self, x: Tensor) -> Tensor:
        """ln Cat(x; p) in nats, summed over dimensions, (B,), for integers x (B, *)."""
        return sum_flat(self.log_p.gather(1, x.unsqueeze(1)))

    def kl(self, other: Categorical) -> Tensor:
        """KL(self ‖ other) in nats, summed over dimensions: (B,). Where only `other` is 0 it is huge
        (−LOG_ZERO) in place of ∞.
        """
        return sum_flat(self.log_p.exp() * (self.log_p - other.log_p))


def discretized_log_prob(x: Tensor, p: Normal, data: DataSpec, cdf: str = "exact") -> Tensor:
    """ln P(x) of a Gaussian whose mass is collected in bins around the values of the data.  [DDPM Eq. 13]

    P(x) = Φ((x − m + h)/s) − Φ((x − m − h)/s), half-width h = (high − low)/(2(bins − 1)); the lowest and the
    highest bin are open-ended, so the probabilities of all bins sum to 1.

    Args:
        x: Values on the grid of `data`, (B, *).
        p: The Gaussian, mean and variance (B, *).
        data: Description of the data, with bins.
        cdf: "exact", in log space: no floor, finite for any mean; "tanh", the published code's approximation
            of Φ (error up to 1.8e-4) with its floor of 1e-12.
    Returns:
        ln P(x) in nats, summed over dimensions, (B,).
    Raises:
        InputError: For data without bins, values off the grid, and another cdf.
    """
    one_of("cdf", cdf, CDFS)
    last, level = _bins(data) - 1, data.exact_bins(x)
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


def _log_mass_exact(delta: Tensor, half: float, std: Tensor, lowest: Tensor, highest: Tensor) -> Tensor:
    """ln(Φ((δ + h)/s) − Φ((δ − h)/s)) without a difference of nearly equal numbers."""
    distance = delta.abs()
    near, far = (half - distance) / std, (half + distance) / std
    # The mean inside the bin: a sum of two positive areas, one on each side of it.
    around = _safe_log((torch.erf(near.clamp_min(0) / _ROOT2) + torch.erf(far / _ROOT2)) / 2)
    # The mean outside: mirrored into the lower tail, ln Φ(a) + ln(1 − Φ(b)/Φ(a)) with a = near < 0, b = −far,
    # b² − a² = 4hδ/s².
    a = near.clamp_max(0)
    log_ratio = _log_scaled(-far) - _log_scaled(a) - 2 * half * distance / std**2
    tail = _log_scaled(a) - a**2 / 2 + _safe_log(-torch.expm1(log_ratio))
    inside = torch.where(near > 0, around, tail)
    return torch.where(
        lowest, _log_cdf((delta + half) / std), torch.where(highest, _log_cdf((half - delta) / std), inside)
    )


def _safe_log(x: Tensor) -> Tensor:
    """ln x, finite at 0 with gradient 0: a branch of `where` that is not taken must not turn the other one
    into NaN.
    """
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
