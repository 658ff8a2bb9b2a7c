"""Noise schedules as float64 tensors in ascending time: entry 0 belongs to t = 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.runtime.checks import LARGEST, number, numbers, positive_int
from scorefield.runtime.errors import InputError

__all__ = [
    "cosine_betas",
    "cosine_kappas",
    "geometric_sigmas",
    "kappas_from_betas",
    "linear_betas",
    "linear_kappas",
    "shifted",
]


_MOST_LEVELS = 10**7
_LARGEST_SHIFT = 1000.0


def linear_betas(T: int, start: float = 1e-4, end: float = 0.02) -> Tensor:
    """β_t equally spaced from `start` to `end`, both included, (T,).  [DDPM §4]

    The end points are used as given: they are never rescaled by 1000/T. For other T pass them yourself, for
    example `linear_betas(T, 0.1 / T, 20 / T)`.

    Args:
        T: Number of noise levels.
        start: β_1, in [0, 1].
        end: β_T, in [0, 1].
    """
    positive_int("T", T, at_most=_MOST_LEVELS)
    first, last = (
        number(f"{name}, a β,", beta, at_least=0, at_most=1)
        for name, beta in (("start", start), ("end", end))
    )
    return torch.linspace(first, last, T, dtype=torch.float64)


def cosine_betas(T: int, s: float = 0.008, max_beta: float = 0.999) -> Tensor:
    """β_t = min(1 − ᾱ_t/ᾱ_{t−1}, max_beta), ᾱ_t = f(t)/f(0), f(t) = cos²(((t/T + s)/(1 + s))·π/2), (T,).
    [Improved DDPM Eq. 17]

    Args:
        T: Number of noise levels.
        s: Offset that keeps β_1 from being too small, at least 0.
        max_beta: Largest β_t, in (0, 1].
    """
    positive_int("T", T, at_most=_MOST_LEVELS)
    s = number("s, the offset,", s, at_least=0, at_most=LARGEST)
    max_beta = number("max_beta", max_beta, above=0, at_most=1)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + s) / (1 + s) * (math.pi / 2)) ** 2
    return (1 - f[1:] / f[:-1]).clamp(max=max_beta)


def geometric_sigmas(sigma_max: float, sigma_min: float, L: int) -> Tensor:
    """L noise levels with a constant ratio, ascending from sigma_min (t = 1) to sigma_max (t = L), (L,).
    [NCSN §4.2]

    NCSN numbers them the other way round: its σ_i is entry L − i here.

    Args:
        sigma_max: The largest σ, of t = L.
        sigma_min: The smallest σ, of t = 1; 0 < sigma_min < sigma_max.
        L: Number of noise levels.
    """
    positive_int("L", L, at_most=_MOST_LEVELS)
    for name, value in (("sigma_max", sigma_max), ("sigma_min", sigma_min)):
        number(name, value, at_least=1 / LARGEST, at_most=LARGEST)
    if not sigma_min < sigma_max:
        raise InputError(
            f"geometric levels need 0 < sigma_min < sigma_max, got sigma_max={sigma_max}, sigma_min={sigma_min}"
        )
    sigmas = torch.linspace(math.log(sigma_min), math.log(sigma_max), L, dtype=torch.float64).exp()
    sigmas[0], sigmas[-1] = (
        sigma_min,
        sigma_max,
    )  # exact ends, so that a saved description rebuilds the same table
    return sigmas


def shifted(u: Tensor, shift: float) -> Tensor:
    """s·u/(1 + (s − 1)u), which maps [0, 1] to itself: on the straight path of `flow` it multiplies σ/α by s.  [Esser et
    al. 2024, Eq. 23]

    Args:
        u: t/T, float64 in any shape.
        shift: s, above 0; above 1 it moves times towards the noise.
    """
    shift = number("shift", shift, at_least=1 / _LARGEST_SHIFT, at_most=_LARGEST_SHIFT)
    return shift * u / (1 + (shift - 1) * u)


def linear_kappas(T: int) -> Tensor:
    """κ_t = 1 − t/T: of the values that are left, a share 1/(T − t + 1) goes at step t, (T,).  [D3PM §3.2]

    Args:
        T: Number of noise levels.
    """
    positive_int("T", T, at_most=_MOST_LEVELS)
    return 1 - torch.arange(1, T + 1, dtype=torch.float64) / T


def cosine_kappas(T: int, s: float = 0.008) -> Tensor:
    """κ_t = f(t)/f(0) with the f of `cosine_betas` and nothing clipped, so that κ_T = 0, (T,).  [Improved
    DDPM Eq. 17]

    Args:
        T: Number of noise levels.
        s: Offset of f, at least 0.
    """
    positive_int("T", T, at_most=_MOST_LEVELS)
    s = number("s, the offset,", s, at_least=0, at_most=LARGEST)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    # cos² of what is left to π/2 as sin²: κ_T is 0, not a rounding error.
    f = torch.sin((1 - u) / (1 + s) * (math.pi / 2)) ** 2
    return f[1:] / f[0]


def kappas_from_betas(betas: Tensor | Sequence[float]) -> Tensor:
    """κ_t = Π_{i ≤ t}(1 − β_i), (T,).

    Args:
        betas: (T,), β_t in (0, 1], the probability that a value is redrawn at step t.
    """
    table = numbers("betas", betas, 1)
    if not bool(((table > 0) & (table <= 1)).all()):
        raise InputError(
            f"betas must be a list of probabilities above 0 and at most 1, got {table.min():g} to {table.max():g}"
        )
    return torch.log1p(-table).cumsum(0).exp()
