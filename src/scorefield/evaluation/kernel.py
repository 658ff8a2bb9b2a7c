"""The kernel distance between two sets of features: unbiased at any count."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.data.loading.epoch_order import permutation
from scorefield.evaluation.frechet import check_features
from scorefield.runtime.errors import InputError

__all__ = ["KernelDistance", "kernel_distance"]

_WHOLE = 10_000  # up to so many examples in either set, the sets are compared whole
_SUBSETS, _SUBSET_SIZE = 100, 1000  # beyond, as in the paper
_ROWS = 1024  # of a kernel matrix in memory


class KernelDistance(NamedTuple):
    """mean: the squared MMD, around 0 (also below) for sets of one distribution.   std: over subsets (divisor
    n), None for one.
    """

    mean: float
    std: float | None


def kernel_distance(
    a: Tensor, b: Tensor, subsets: int | None = None, subset_size: int | None = None, seed: int = 0
) -> KernelDistance:
    """E k(a, a') + E k(b, b') - 2 E k(a, b), a ≠ a' and b ≠ b', with k(x, y) = (x·y/D + 1)³  [Bińkowski et
    al. 2018 Eq. 4]

    The unbiased estimate of the squared maximum mean discrepancy, in float64. a: features (M, D), b: (N, D).
    Unlike a Fréchet distance its expectation does not depend on the counts.

    subsets, subset_size: the mean over so many random subsets of this size from each set, drawn by `seed`
    without replacement, each subset anew. Neither given: the whole sets in one estimate where neither exceeds
    10,000 examples, which is less noisy; beyond, 100 subsets of 1,000, as in the paper. One given: the other
    is 100 or 1,000 (fewer where a set is smaller).
    InputError: features of other shapes or not finite, subsets of fewer than 2 or more than there are.
    """
    check_features(a, b)
    a, b = a.detach().cpu(), b.detach().cpu()
    smaller = min(len(a), len(b))
    if smaller < 2:
        raise InputError(
            f"a kernel distance needs at least 2 examples of each, and there are {len(a)} and {len(b)}"
        )
    if subsets is None and subset_size is None and max(len(a), len(b)) <= _WHOLE:
        return KernelDistance(_mmd(a, b), None)
    subsets = _SUBSETS if subsets is None else subsets
    size = min(_SUBSET_SIZE, smaller) if subset_size is None else subset_size
    if subsets < 1:
        raise InputError(f"subsets must be at least 1, got {subsets}")
    if not 2 <= size <= smaller:
        raise InputError(
            f"subset_size must be between 2 and {smaller}, the smaller of the two counts; got {size}"
        )
    drawn = ((_draw(a, size, seed, k, 0), _draw(b, size, seed, k, 1)) for k in range(subsets))
    found = torch.tensor([_mmd(*pair) for pair in drawn], dtype=torch.float64)
    return KernelDistance(float(found.mean()), float(found.std(correction=0)) if subsets > 1 else None)


def _draw(x: Tensor, size: int, seed: int, subset: int, side: int) -> Tensor:
    return x[torch.from_numpy(permutation(len(x), seed, epoch=subset, stream=side)[:size])]


def _mmd(a: Tensor, b: Tensor) -> float:
    (m, n), (a, b) = (len(a), len(b)), (a.double(), b.double())
    return _within(a) / (m * (m - 1)) + _within(b) / (n * (n - 1)) - 2 * _sum(a, b) / (m * n)


def _within(x: Tensor) -> float:
    """Σ_{i≠j} k(x_i, x_j)"""
    own = (x.square().sum(dim=1) / x.shape[1] + 1).pow(3).sum()
    return _sum(x, x) - float(own)


def _sum(x: Tensor, y: Tensor) -> float:
    """Σ_ij k(x_i, y_j)"""
    return sum(float((rows @ y.T / x.shape[1] + 1).pow_(3).sum()) for rows in x.split(_ROWS))
