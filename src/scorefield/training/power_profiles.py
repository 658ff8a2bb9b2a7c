"""Profiles of power-function moving averages, and how a stored set of averages makes one of another length.  [Karras
et al. 2024a Sec. 3.1 and 3.2]

The average after n steps weighs the weights of step τ by p(τ) = (γ + 1) τ^γ / n^(γ+1) on [0, n]. Its length is the standard
deviation of this profile as a share of n, σ_rel = √(γ + 1) / ((γ + 2) √(γ + 3)): the same share at every n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scorefield.runtime.checks import number
from scorefield.runtime.errors import InputError

__all__ = [
    "LONGEST",
    "SHORTEST",
    "Profile",
    "combination",
    "difference",
    "exponent",
    "inner_products",
    "length",
]

LONGEST = 12**-0.5  # of γ = 0, the mean of all steps
SHORTEST = 1e-3


class Profile(NamedTuple):
    """The profile of an average.

    Attributes:
        step: n, the steps it is over.
        length: σ_rel.
    """

    step: int
    length: float


def length(gamma: float) -> float:
    """σ_rel of an exponent γ ≥ 0.  [Karras et al. 2024a Sec. 3.1]

    Args:
        gamma: γ.
    """
    gamma = number("gamma, the exponent of a power-function profile,", gamma, at_least=0)
    return float((gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5))


def exponent(length: float) -> float:
    """γ ≥ 0 of a length σ_rel: the largest root of (γ + 2)²(γ + 3) = (γ + 1)/σ_rel².

    Args:
        length: σ_rel, from 0.001 to 1/√12 = 0.2887, the length of the mean of all steps.

    Raises:
        InputError: For a length outside of this range.
    """
    found = number(
        "length, the relative width σ_rel of an average,", length, at_least=SHORTEST, at_most=LONGEST
    )
    ratio = found**-2.0
    return max(0.0, float(np.roots([1, 7, 16 - ratio, 12 - ratio]).real.max()))


def inner_products(first: Sequence[Profile], second: Sequence[Profile]) -> np.ndarray:
    """∫ p_a(τ) p_b(τ) dτ = (γ_a + 1)(γ_b + 1) m^(γ_a+γ_b+1) / ((γ_a + γ_b + 1) n_a^(γ_a+1) n_b^(γ_b+1)), m = min(n_a, n_b).

    Args:
        first: Profiles a.
        second: Profiles b.

    Returns:
        (len(first), len(second)) float64.
    """
    n_a, a = (column[:, None] for column in _columns(first))
    n_b, b = _columns(second)
    low = np.minimum(n_a, n_b)
    powers = (low / n_a) ** (a + 1) * (low / n_b) ** (b + 1)
    return np.asarray((a + 1) * (b + 1) * powers / ((a + b + 1) * low))


def combination(stored: Sequence[Profile], wanted: Profile) -> np.ndarray:
    """Coefficients x of stored averages whose combination Σ x_i θ̂_i has the profile nearest to the wanted one.

    They minimise ∫ (Σ x_i p_i − p)², that is Σ_j ⟨p_i, p_j⟩ x_j = ⟨p_i, p⟩. A wanted profile that is stored has the
    coefficient 1 and all others 0.

    Args:
        stored: The profiles of the stored averages.
        wanted: The profile to make.

    Returns:
        (len(stored),) float64.

    Raises:
        InputError: Where nothing is stored.
    """
    if not stored:
        raise InputError("there are no stored averages to combine")
    if wanted in stored:
        return np.eye(len(stored))[list(stored).index(wanted)]
    gram, right = inner_products(stored, stored), inner_products(stored, [wanted])[:, 0]
    # Profiles of early steps are far larger than late ones: each has norm 1 in what is solved.
    scale = gram.diagonal() ** -0.5
    found = np.linalg.lstsq(scale[:, None] * gram * scale, scale * right, rcond=None)[0]
    return np.asarray(scale * found, dtype=np.float64)


def difference(stored: Sequence[Profile], weights: np.ndarray, wanted: Profile) -> float:
    """‖Σ x_i p_i − p‖/‖p‖, by how much the profile of a combination differs from the wanted one.

    Args:
        stored: The profiles of the stored averages.
        weights: Their coefficients, (len(stored),).
        wanted: The profile p.
    """
    square = float(inner_products([wanted], [wanted])[0, 0])
    mixed = float(weights @ inner_products(stored, [wanted])[:, 0])
    left = square - 2 * mixed + float(weights @ inner_products(stored, stored) @ weights)
    return (max(left, 0.0) / square) ** 0.5


def _columns(profiles: Sequence[Profile]) -> tuple[np.ndarray, np.ndarray]:
    """Their steps and their exponents."""
    gammas = {sigma: exponent(sigma) for sigma in {profile.length for profile in profiles}}
    steps = np.array([float(profile.step) for profile in profiles])
    return steps, np.array([gammas[profile.length] for profile in profiles])
