"""Precision (fidelity) and recall (coverage) of generated images by nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.evaluation.frechet import check_features
from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import InputError

__all__ = ["PrecisionRecall", "precision_recall"]


@dataclass(frozen=True)
class _Memory:
    block: int  # float64 distances at a time
    columns: int  # points in float64 at a time


class PrecisionRecall(NamedTuple):
    """Fidelity and coverage.

    Attributes:
        precision: Fraction of generated examples in the manifold of the reference.
        recall: Fraction of reference examples in the manifold of the generated ones.
    """

    precision: float
    recall: float


def precision_recall(
    generated: Tensor, reference: Tensor, k: int = 3, *, block: int = 2**23, columns: int = 4096
) -> PrecisionRecall:
    """The fraction of one set within the other's k-nearest-neighbour balls, both ways  [Kynkäänniemi et al.
    2019 Eq. 1-2]

    f(x, Y) = 1 if |x - y| ≤ |y - NN_k(y, Y)| for any y of Y: the union of balls about Y that reach to each
    one's k-th nearest other. precision = mean f(x, Y) over generated x (N, D), recall = mean f(y, X) over
    reference y (M, D). Distances are Euclidean, in float64; an example that stands twice is its own nearest
    neighbour. Both fractions change with the
    counts: compare equal counts only. Time grows as (N + M)² D, memory does not.

    Args:
        generated: Features (N, D).
        reference: Features (M, D).
        k: Which neighbour a ball reaches, at least 1.
        block: Most float64 distances in memory at a time. Default: 64 MiB.
        columns: Most points converted to float64 at a time.
    Raises:
        InputError: Features of other shapes or not finite, a set of no more than k examples.
    """
    check_features(generated, reference)
    positive_int("k", k, at_least=0, at_most=10**9)
    positive_int("block", block)
    positive_int("columns", columns)
    for what, features in (("generated", generated), ("reference", reference)):
        if not 1 <= k < len(features):
            raise InputError(
                f"the {k}-th nearest neighbour needs at least {max(k, 1) + 1} examples and k at least 1; "
                f"there are {len(features)} {what} examples: make more, or choose a smaller k"
            )
    x, y = (features.detach().cpu() for features in (generated, reference))
    memory = _Memory(block, columns)
    return PrecisionRecall(_covered(x, y, k, memory), _covered(y, x, k, memory))


def _covered(queries: Tensor, points: Tensor, k: int, memory: _Memory) -> float:
    """The fraction of `queries` within a ball about any of `points`."""
    radii, squares, covered = _squared_radii(points, k, memory), _squares(points, memory), 0
    for rows in queries.split(_rows(points, memory)):
        near, slack = _about(rows, points, squares, memory)
        found = (near <= radii - slack).any(dim=1)
        i, j = ((near <= radii + slack) & ~found[:, None]).nonzero(as_tuple=True)
        found[i[_exactly(rows, i, points, j, memory) <= radii[j]]] = True
        covered += int(found.sum())
    return covered / len(queries)


def _squared_radii(points: Tensor, k: int, memory: _Memory) -> Tensor:
    """The squared distance of each point to its k-th nearest other, float64 (N,)."""
    radii, squares, size = [], _squares(points, memory), _rows(points, memory)
    for start in range(0, len(points), size):
        rows = points[start : start + size]
        near, slack = _about(rows, points, squares, memory)
        own = torch.arange(len(rows))
        near[own, start + own] = torch.inf
        i, j = (near <= (near.kthvalue(k, dim=1, keepdim=True).values + 2 * slack)).nonzero(as_tuple=True)
        exact = torch.full_like(near, torch.inf)
        exact[i, j] = _exactly(rows, i, points, j, memory)
        radii.append(exact.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def _rows(points: Tensor, memory: _Memory) -> int:
    return max(memory.block // len(points), 1)


def _squares(x: Tensor, memory: _Memory) -> Tensor:
    """|x|², float64 (N,)."""
    return torch.cat([part.double().square().sum(dim=1) for part in x.split(memory.columns)])


def _about(x: Tensor, y: Tensor, squares: Tensor, memory: _Memory) -> tuple[Tensor, Tensor]:
    """|x|² - 2 x·y + |y|² (B, N) given |y|² (N,), and for each x a bound (B, 1) on what rounding has done to
    it.
    """
    x, own = x.double(), _squares(x, memory)[:, None]
    near = (
        torch.cat([x @ part.double().T for part in y.split(memory.columns)], dim=1)
        .mul_(-2)
        .add_(own)
        .add_(squares)
    )
    return near, 4 * (x.shape[1] + 2) * torch.finfo(torch.float64).eps * (own + squares.amax())


def _exactly(x: Tensor, i: Tensor, y: Tensor, j: Tensor, memory: _Memory) -> Tensor:
    """|x_i - y_j|² from the difference, for pairs i, j (P,): the same for both orders of a pair, 0 for equal
    examples.
    """
    size = max(memory.block // x.shape[1], 1)
    parts = [
        (x[m].double() - y[n].double()).square().sum(dim=1) for m, n in zip(i.split(size), j.split(size))
    ]
    return torch.cat(parts)
