"""Detection of memorized samples by distances to the nearest training image."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.core.shapes import check_real
from scorefield.runtime.checks import check_finite, positive_int
from scorefield.runtime.errors import InputError

__all__ = ["copied", "copying_ratio", "nearest", "nearest_distances"]

_ROWS = 2048  # images that are compared with as many at a time


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
    _check_pairs(queries, references)
    positive_int("block", block)
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


def nearest(queries: Tensor, references: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The nearest references of each query by Euclidean distance, as `nearest_distances` measures it.

    Args:
        queries: (N, *), flattened.
        references: (M, *), of the same data shape.
        count: How many of them; all where there are fewer.

    Returns:
        Distances, float64 (N, count), ascending, and the references' numbers, int64 (N, count).

    Raises:
        InputError: No references, or other shapes.
    """
    _check_pairs(queries, references)
    q, r = queries.detach().flatten(1).cpu().double(), references.detach().flatten(1).cpu()
    found = torch.empty(len(q), 0, dtype=torch.float64)
    numbers = torch.empty(len(q), 0, dtype=torch.int64)
    for start in range(0, len(r), _ROWS):
        near = r[start : start + _ROWS].double()
        squares = torch.stack([(near - one).square().sum(dim=1) for one in q])
        found = torch.cat([found, squares], dim=1)
        numbers = torch.cat([numbers, (start + torch.arange(len(near))).expand(len(q), -1)], dim=1)
        best = found.sort(dim=1, stable=True).indices[:, :count]
        found, numbers = found.gather(1, best), numbers.gather(1, best)
    return found.sqrt(), numbers


def _check_pairs(queries: Tensor, references: Tensor) -> None:
    """InputError unless these are examples of one shape, with at least one reference."""
    for name, x in (("queries", queries), ("references", references)):
        check_real(name, x, "a tensor (N, *) of real numbers")
    if queries.ndim < 2 or queries.shape[1:] != references.shape[1:]:
        raise InputError(
            f"queries and references must have one data shape, got {tuple(queries.shape)} and {tuple(references.shape)}"
        )
    if not len(references):
        raise InputError("references must hold at least one example")


def copied(queries: Tensor, references: Tensor, within: int, pixels: int = 0) -> Tensor:
    """Which images are copies: all but at most `pixels` of their pixels lie within `within` levels, in every channel,
    of the same pixels of one reference. bool (N,) on the CPU.

    Exact, without comparing every pair: the pixels are dealt into `pixels` + 1 parts, and of a copy at least one part
    agrees everywhere, so its squared distance is at most within² times its number of values. Only such pairs are
    compared pixel by pixel.

    Args:
        queries: uint8 (N, C, H, W).
        references: uint8 (M, C, H, W).
        within: The largest difference of two values that count as equal, in levels, 0 … 255.
        pixels: How many pixels may differ by more.
    Raises:
        InputError: Other types or shapes.
    """
    if queries.dtype != torch.uint8 or references.dtype != torch.uint8:
        raise InputError(f"copies are found in uint8 images, got {queries.dtype} and {references.dtype}")
    if queries.ndim != 4 or queries.shape[1:] != references.shape[1:]:
        raise InputError(
            f"queries and references must be images (N, C, H, W) of one size, got {tuple(queries.shape)} and "
            f"{tuple(references.shape)}"
        )
    positive_int("within", within, 0, 255)
    positive_int("pixels", pixels, 0)
    q, r = queries.cpu().flatten(2), references.cpu().flatten(2)  # (N, C, pixels)
    found = torch.zeros(len(q), dtype=torch.bool)
    parts = [torch.arange(k, q.shape[2], pixels + 1) for k in range(min(pixels + 1, q.shape[2]))]
    for near in r.split(_ROWS):
        for start in range(0, len(q), _ROWS):
            some = q[start : start + _ROWS]
            for part in parts:
                _mark(found[start : start + _ROWS], some, near, part, within, pixels)
    return found


def _mark(found: Tensor, q: Tensor, r: Tensor, part: Tensor, within: int, pixels: int) -> None:
    """Set found where all of this part's values, and all but `pixels` pixels, agree with one reference."""
    rest = (~found).nonzero().flatten()
    a, b = q[rest][:, :, part].flatten(1).double(), r[:, :, part].flatten(1).double()
    bound = within**2 * a.shape[1]
    squares = torch.addmm(a.square().sum(1, keepdim=True) + b.square().sum(1), a, b.T, alpha=-2)
    for i, j in (
        pair.T for pair in (squares <= bound + 0.5).nonzero().split(_ROWS)
    ):  # the squares of integers are exact in float64
        differ = (q[rest[i]].short() - r[j].short()).abs().amax(dim=1) > within
        found[rest[i[differ.sum(dim=1) <= pixels]]] = True


def copying_ratio(samples: Tensor, heldout: Tensor) -> float:
    """The median of the samples' distances to their nearest training image over that of held-out images to
    theirs.

    About 1 for new images, 0 for copies. The median ignores a few outliers of either kind, but moves only
    once half the samples are copies: `Quality.near` counts fewer.

    Args:
        samples: Distances (N,) from `nearest_distances`.
        heldout: Distances (M,) of held-out images.

    Raises:
        InputError: For no distances, and for held-out images that are mostly in the training set themselves
            (median 0).
    """
    for name, x in (("samples", samples), ("heldout", heldout)):
        check_real(name, x, "distances (N,)")
        if x.ndim != 1 or not len(x):
            raise InputError(
                f"copying_ratio needs distances of both, (N,) and (M,); {name} has shape {tuple(x.shape)}"
            )
        check_finite(x, "distances", "measure them by nearest_distances")
    usual = float(heldout.double().quantile(0.5))
    if not usual > 0:
        raise InputError(
            "most held-out images are in the training set too (distance 0): remove the duplicates and split again"
        )
    return float(samples.double().quantile(0.5)) / usual
