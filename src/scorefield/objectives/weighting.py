"""How much each level counts: weights w of w·|ε̂ − ε|², stated once, in ε units, for every parametrization."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.core.prediction import Level
from scorefield.models.denoiser import Denoiser
from scorefield.runtime.checks import one_of
from scorefield.runtime.registry import WEIGHTINGS

__all__ = ["SMALLEST_SIGNAL", "check_weighting", "weight"]

# In the place of α = 0, where w may be infinite and w·α² is its limit: the squares of both are numbers.
SMALLEST_SIGNAL = 1e-150

_SNR_LIMIT = 5.0


def eps(model: Denoiser, t: Tensor) -> Tensor:
    """w = 1: L_simple, and NCSN's λ(σ) = σ².  [DDPM Eq. 14; NCSN Eq. 6]"""
    return torch.ones_like(model.process.level(t).alpha)


def x0(model: Denoiser, t: Tensor) -> Tensor:
    """w = σ²/α²: plain mean squared error of x̂0."""
    alpha, sigma = _level(model, t)
    return sigma**2 / alpha**2


def v(model: Denoiser, t: Tensor) -> Tensor:
    """w = n²/α² with n² = α² + σ²: plain mean squared error of the velocity, 1/α² on a VP process."""
    alpha, sigma = _level(model, t)
    return (alpha**2 + sigma**2) / alpha**2


def network(model: Denoiser, t: Tensor) -> Tensor:
    """w = (σ/(α c_out))²: plain mean squared error of the network's output, whatever it means."""
    alpha, sigma = _level(model, t)
    return (sigma / (alpha * model.coefficients(t).out)) ** 2


def min_snr(model: Denoiser, t: Tensor) -> Tensor:
    """w = min(SNR, 5)/SNR with SNR = α²/σ².  [Hang et al. 2023]"""
    alpha, sigma = _level(model, t)
    return (_SNR_LIMIT * sigma**2 / alpha**2).clamp_max(1)


def edm(model: Denoiser, t: Tensor) -> Tensor:
    """w = (σ̃² + σ_d²)/σ_d² with σ̃ = σ/α: unit weight on the network's own target.  [Karras et al. 2022,
    Table 1]
    """
    alpha, sigma = _level(model, t)
    return 1 + (sigma / (alpha * model.sigma_data)) ** 2


def _level(model: Denoiser, t: Tensor) -> Level:
    alpha, sigma = model.process.level(t)
    return Level(alpha.clamp_min(SMALLEST_SIGNAL), sigma)


def check_weighting(name: str) -> str:
    """The name itself, or InputError with the names there are."""
    return one_of("weighting", name, WEIGHTINGS)


def weight(name: str, model: Denoiser, t: Tensor) -> Tensor:
    """w at t, float64 (B,). Unknown names: InputError."""
    make: Callable[[Denoiser, Tensor], Tensor] = WEIGHTINGS[name]
    return make(model, t)
