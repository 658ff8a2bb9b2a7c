"""Detection of memorized samples by distances to the nearest training image."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.runtime.errors import InputError

__all__ = ["copying_ratio", "nearest_distances"]


def nearest_distances(queries: Tensor, references: Tensor, *, block: int = 2**22) -> Tensor:
    """min_j |q_i - r_j|, the Euclidean distance of each query to its nearest reference, float64 (N,) on the
    CPU.

    The nearest is found by |q|² - 2 q·r + |r|² in float64 and its distance computed again from the
    difference, so a copy has distance 0 and the result exceeds the smallest distance by a relative 1e-13
    (|q|/d)² at most.

    Args:
        queries: (N, *), flattened.
        references: (M, *), of the same data shape.
        block: Most float64 values in memory at a time. Default: 32 MiB.
    Raises:
        InputError: No references, or other shapes.
    """
    if queries.ndim < 2 or queries.shape[1:] != references.shape[1:]:
        raise InputError(
            f"queries and references must have one data shape, got {tuple(queries.shape)} and {tuple(references.shape)}"
        )
    if not len(references):
        raise InputError("there are no references to be near to")
    q, r = queries.detach().flatten(1).cpu(), references.detach().flatten(1).cpu()
    best = torch.full((len(q),), torch.inf, dtype=torch.float64)
    rows = max(block // max(q.shape[1], 1024), 1)
    for near in r.split(rows):
        near = near.double()
        squares = near.square().sum(dim=1)
        for start in range(0, len(q), 1024):
            part = q[start : start + 1024].double()
            found = torch.addmm(squares, part, near.T, alpha=-2).argmin(dim=1)
            distance = (part - near[found]).square().sum(dim=1).sqrt()
            best[start : start + 1024] = torch.minimum(best[start : start + 1024], distance)
    return best


def copying_ratio(samples: Tensor, heldout: Tensor) -> float:
    """The median of the samples' distances to their nearest training image over that of held-out images to
    theirs.

    samples, heldout: distances (N,) and (M,) from `nearest_distances`. About 1 for new images, 0 for copies.
    The median ignores a few outliers of either kind, but moves only once half the samples are copies:
    `Quality.near` counts fewer.
    InputError: no distances, or held-out images that are mostly in the training set themselves (median 0).
    """
    if not len(samples) or not len(heldout):
        raise InputError(f"copying_ratio needs distances of both, got {len(samples)} and {len(heldout)}")
    usual = float(heldout.quantile(0.5))
    if not usual > 0:
        raise InputError(
            "most held-out images are in the training set too (distance 0): remove the duplicates and split again"
        )
    return float(samples.quantile(0.5)) / usual
