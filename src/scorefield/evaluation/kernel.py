"""Kernel distance (KID) between two sets of features: unbiased at any count."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.data.loading.epoch_order import permutation
from scorefield.evaluation.frechet import check_features
from scorefield.runtime.bounds import SEED
from scorefield.runtime.checks import brief, positive_int
from scorefield.runtime.errors import InputError

__all__ = ["KernelDistance", "kernel_distance"]

_SUBSETS, _SUBSET_SIZE = 100, 1000  # as in the paper
_MOST_SUBSETS = 10**6


class KernelDistance(NamedTuple):
    """The kernel distance over subsets.

    Attributes:
        mean: The squared MMD, around 0 (also below) for sets of one distribution.
        std: Standard deviation with divisor n; None for one subset.
    """

    mean: float
    std: float | None


def kernel_distance(
    a: Tensor,
    b: Tensor,
    subsets: int | None = None,
    subset_size: int | None = None,
    seed: int = 0,
    *,
    whole: int = 10_000,
    rows: int = 1024,
) -> KernelDistance:
    """E k(a, a') + E k(b, b') - 2 E k(a, b), a ≠ a' and b ≠ b', with k(x, y) = (x·y/D + 1)³  [Bińkowski et
    al. 2018 Eq. 4]

    The unbiased estimate of the squared maximum mean discrepancy, in float64. Unlike a Fréchet distance its
    expectation does not depend on the counts.

    Args:
        a: Features (M, D).
        b: Features (N, D).
        subsets: Number of random subsets, drawn without replacement and each anew, whose distances are
            averaged. Default: the sets are compared in one estimate, which is less noisy, where neither
            exceeds `whole`; 100 subsets otherwise, and where only subset_size is given.
        subset_size: Examples of a subset from each set, at least 2. Default: 1,000, as in the paper, or all
            of the smaller set.
        seed: Seed of the subsets.
        whole: Most examples of a set that are compared in one estimate by default.
        rows: Most rows of a kernel matrix in memory.
    Raises:
        InputError: Features of other shapes or not finite, subsets of fewer than 2 or more than there are.
    """
    check_features(a, b)
    a, b = a.detach().cpu(), b.detach().cpu()
    smaller = min(len(a), len(b))
    positive_int("whole", whole, at_least=0)
    positive_int("rows", rows)
    positive_int("seed", seed, at_least=0, at_most=SEED)
    if subsets is not None:
        positive_int("subsets", subsets, at_most=_MOST_SUBSETS)
    if subset_size is not None:
        positive_int("subset_size", subset_size)
    if smaller < 2:
        raise InputError(
            f"a kernel distance needs at least 2 examples of each, and there are {len(a)} and {len(b)}"
        )
    if subsets is None and subset_size is None and max(len(a), len(b)) <= whole:
        return KernelDistance(_mmd(a, b, rows), None)
    subsets = _SUBSETS if subsets is None else subsets
    size = min(_SUBSET_SIZE, smaller) if subset_size is None else subset_size
    if not 2 <= size <= smaller:
        raise InputError(
            f"subset_size must be between 2 and {smaller}, the smaller of the two counts; got {brief(size)}"
        )
    drawn = ((_draw(a, size, seed, k, 0), _draw(b, size, seed, k, 1)) for k in range(subsets))
    found = torch.tensor([_mmd(*pair, rows) for pair in drawn], dtype=torch.float64)
    return KernelDistance(float(found.mean()), float(found.std(correction=0)) if subsets > 1 else None)


def _draw(x: Tensor, size: int, seed: int, subset: int, side: int) -> Tensor:
    return x[torch.from_numpy(permutation(len(x), seed, epoch=subset, stream=side)[:size])]


def _mmd(a: Tensor, b: Tensor, rows: int) -> float:
    (m, n), (a, b) = (len(a), len(b)), (a.double(), b.double())
    within = _within(a, rows) / (m * (m - 1)) + _within(b, rows) / (n * (n - 1))
    found = within - 2 * _sum(a, b, rows) / (m * n)
    if not math.isfinite(found):
        raise InputError("the features are so large that their third powers overflow: scale them")
    return found


def _within(x: Tensor, rows: int) -> float:
    """Σ_{i≠j} k(x_i, x_j)"""
    own = (x.square().sum(dim=1) / x.shape[1] + 1).pow(3).sum()
    return _sum(x, x, rows) - float(own)


def _sum(x: Tensor, y: Tensor, rows: int) -> float:
    """Σ_ij k(x_i, y_j)"""
    return sum(float((part @ y.T / x.shape[1] + 1).pow_(3).sum()) for part in x.split(rows))
