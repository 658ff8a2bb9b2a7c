"""Noise schedules as float64 tensors in ascending time: entry 0 belongs to t = 1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorefield.core.errors import InputError

__all__ = ["cosine_betas", "geometric_sigmas", "linear_betas"]


def linear_betas(T: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """β_t equally spaced from `start` to `end`, both included, (T,).  [DDPM §4]

    The end points are used as given: they are never rescaled by 1000/T. For other T pass them yourself, for example
    `linear_betas(T, 0.1 / T, 20 / T)`.
    """
    _check_count("T", T)
    return torch.linspace(start, end, T, dtype=torch.float64)


def cosine_betas(T: int, s: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """β_t = min(1 − ᾱ_t/ᾱ_{t−1}, max_beta), ᾱ_t = f(t)/f(0), f(t) = cos²(((t/T + s)/(1 + s))·π/2), (T,).  [Improved DDPM Eq. 17]"""
    _check_count("T", T)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + s) / (1 + s) * (math.pi / 2)) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=max_beta)


def geometric_sigmas(sigma_max: float, sigma_min: float, L: int) -> Tensor:
    """L noise levels with a constant ratio, ascending from sigma_min (t = 1) to sigma_max (t = L), (L,).  [NCSN §4.2]

    NCSN numbers them the other way round: its σ_i is entry L − i here.
    """
    _check_count("L", L)
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"geometric levels need 0 < sigma_min < sigma_max, got sigma_max={sigma_max}, sigma_min={sigma_min}")
    sigmas = torch.linspace(math.log(sigma_min), math.log(sigma_max), L, dtype=torch.float64).exp()
    sigmas[0], sigmas[-1] = sigma_min, sigma_max  # exact ends, so that a saved description rebuilds the same table
    return sigmas


def _check_count(name: str, n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise InputError(f"{name} is the number of noise levels, a positive integer; got {n!r}")
