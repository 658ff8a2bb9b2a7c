"""DDPM posteriors and transitions between two levels (α, σ)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from scorefield.core.distributions import Normal
from scorefield.core.prediction import Level, Prediction
from scorefield.core.shapes import expand
from scorefield.runtime.checks import one_of
from scorefield.runtime.errors import IncompatibleModel

__all__ = [
    "VARIANCES",
    "Variance",
    "family",
    "lower_var",
    "posterior",
    "posterior_coefficients",
    "reverse",
    "transition",
]

Variance = Literal["lower", "upper", "learned"]
VARIANCES = ("lower", "upper", "learned")


def transition(hi: Level, lo: Level) -> tuple[Tensor, Tensor]:
    """q(x_t | x_s) = N(α_{t|s} x_s, σ²_{t|s} I) for t > s.  [DDPM Eq. 2, for any pair of levels]

    Args:
        hi: The level at t.
        lo: The level at s.

    Returns:
        (α_{t|s}, σ²_{t|s}) = (α_t/α_s, σ_t² − α_{t|s}² σ_s²), float64, in the levels' shape.
    """
    alpha_ts = hi.alpha / lo.alpha
    # The clamp only removes a rounding error: the variance of a forward step is never negative.
    return alpha_ts, (hi.sigma**2 - alpha_ts**2 * lo.sigma**2).clamp_min(0)


def posterior_coefficients(hi: Level, lo: Level) -> tuple[Tensor, Tensor]:
    """(c_0, c_t) in E[x_s | x_t, x_0] = c_0 x_0 + c_t x_t.  [DDPM Eq. 7]"""
    alpha_ts, var_ts = transition(hi, lo)
    return lo.alpha * var_ts / hi.sigma**2, alpha_ts * lo.sigma**2 / hi.sigma**2


def lower_var(hi: Level, lo: Level) -> Tensor:
    """σ²_{t|s} σ_s² / σ_t², the variance of q(x_s | x_t, x_0): β̃_t for neighbours, 0 at s = 0.  [DDPM Eq. 7]"""
    _, var_ts = transition(hi, lo)
    return var_ts * lo.sigma**2 / hi.sigma**2


def posterior(x_t: Tensor, x0: Tensor, hi: Level, lo: Level) -> Normal:
    """q(x_s | x_t, x_0).  [DDPM Eq. 6–7]

    Args:
        x_t: (B, *).
        x0: x_0, (B, *).
        hi: The level at t.
        lo: The level at s < t.

    Returns:
        A normal distribution with mean (B, *) and a variance that broadcasts to it.
    """
    c_0, c_t = posterior_coefficients(hi, lo)
    return Normal(expand(c_0, x_t) * x0 + expand(c_t, x_t) * x_t, expand(lower_var(hi, lo), x_t))


def family(x_t: Tensor, x0: Tensor, hi: Level, lo: Level, eta: float, above: Level | None = None) -> Normal:
    """q_ς(x_s | x_t, x_0) = N(α_s x_0 + √(σ_s² − ς²)·(x_t − α_t x_0)/σ_t, ς² I), ς = η·(σ_s/σ_t)·σ_{t|s}.  [DDIM Eq. 7,
    16]

    At s = 0, where ς would be 0, its square is η²ν with the ν of `reverse`.

    Args:
        x_t: (B, *).
        x0: x_0, or x̂0, (B, *).
        hi: The level at t.
        lo: The level at s < t.
        eta: η, in (0, 1]; 1 is `posterior`.
        above: The level over t in the grid.

    Returns:
        A normal distribution with mean (B, *) and a variance that broadcasts to it.
    """
    lower, var_ts, _ = _bounds(hi, lo, above)
    eps = (x_t - expand(hi.alpha, x_t) * x0) / expand(hi.sigma, x_t)
    along = lo.sigma * (1 - eta**2 * var_ts / hi.sigma**2).clamp_min(0).sqrt()
    return Normal(expand(lo.alpha, x_t) * x0 + expand(along, x_t) * eps, expand(eta**2 * lower, x_t))


def reverse(pred: Prediction, hi: Level, lo: Level, variance: Variance, above: Level | None = None) -> Normal:
    """p(x_s | x_t): the posterior with x̂0 in the place of x_0, and one of three variances.  [DDPM §3.2;
    Improved DDPM Eq. 15]

    "lower" is σ²_{t|s}σ_s²/σ_t² (β̃), "upper" σ²_{t|s} (β), "learned" what the network's variance half says.
    At s = 0 "lower" would be 0, so there it is ν = lower(u, t) with u the grid level `above` t, or σ²_{t|0}
    without one; "upper" uses ν there too and "range" interpolates between ln σ²_{t|0} and ln ν.
    """
    c_0, c_t = posterior_coefficients(hi, lo)
    mean = expand(c_0, pred.x_t) * pred.x0 + expand(c_t, pred.x_t) * pred.x_t
    one_of("variance", variance, VARIANCES)
    return Normal(mean, _VARIANCE[variance](pred, hi, lo, above))


def _bounds(hi: Level, lo: Level, above: Level | None) -> tuple[Tensor, Tensor, Tensor]:
    """(lower with its floor, σ²_{t|s}, whether s = 0)."""
    _, var_ts = transition(hi, lo)
    floor = var_ts if above is None else lower_var(above, hi)
    at_zero = lo.sigma == 0
    return torch.where(at_zero, floor, lower_var(hi, lo)), var_ts, at_zero


def _lower(pred: Prediction, hi: Level, lo: Level, above: Level | None) -> Tensor:
    lower, _, _ = _bounds(hi, lo, above)
    return expand(lower, pred.x_t)


def _upper(pred: Prediction, hi: Level, lo: Level, above: Level | None) -> Tensor:
    lower, var_ts, at_zero = _bounds(hi, lo, above)
    return expand(torch.where(at_zero, lower, var_ts), pred.x_t)


def _learned(pred: Prediction, hi: Level, lo: Level, above: Level | None) -> Tensor:
    if pred.var_frac is not None:
        lower, var_ts, _ = _bounds(hi, lo, above)
        log_lower, log_upper = expand(lower.log(), pred.x_t), expand(var_ts.log(), pred.x_t)
        return (pred.var_frac * log_upper + (1 - pred.var_frac) * log_lower).exp()
    if pred.log_var is not None and pred.below is not None:
        return _direct(pred, pred.log_var, hi, lo, pred.below)
    raise IncompatibleModel(
        'variance="learned" needs a model with a variance head, and this one has none: sample it with variance="lower" or '
        '"upper", or train one with Denoiser(..., variance="range")'
    )


def _direct(pred: Prediction, log_var: Tensor, hi: Level, lo: Level, below: Level) -> Tensor:
    """Σ on any pair from ln Σ of the training neighbours (t, t−1).

    The learned Σ exceeds β̃ by the uncertainty of x_0 times c²; that uncertainty belongs to t, and carries to
    any s.
    """
    same = bool(torch.equal(lo.alpha, below.alpha) and torch.equal(lo.sigma, below.sigma))
    if same:
        return log_var.exp()
    c_pair, _ = posterior_coefficients(hi, lo)
    c_next, _ = posterior_coefficients(hi, below)
    excess = (log_var.exp() - expand(lower_var(hi, below), pred.x_t)).clamp_min(0)
    return expand(lower_var(hi, lo), pred.x_t) + expand((c_pair / c_next) ** 2, pred.x_t) * excess


_VARIANCE = {"lower": _lower, "upper": _upper, "learned": _learned}
