"""Transforms of a batch. Random numbers are arguments, so that they can be keyed by example, not by batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scorefield.core.shapes import DataSpec, check_device, check_real
from scorefield.runtime.checks import brief, instance_of, positive_int
from scorefield.runtime.errors import InputError

__all__ = ["dequantize", "flip", "reduced", "shift"]


def flip(x: Tensor, coin: Tensor) -> Tensor:
    """Mirror the images left to right whose coin is below 1/2.

    Args:
        x: Images (B, C, H, W).
        coin: Uniform numbers in [0, 1), (B,).
    """
    check_real("x", x, "images (B, C, H, W)")
    check_real("coin", coin)
    if x.ndim != 4 or coin.shape != x.shape[:1]:
        raise InputError(
            f"flip takes images (B, C, H, W) and one coin each (B,), got {tuple(x.shape)} and "
            f"{tuple(coin.shape)}"
        )
    return torch.where((coin < 0.5).to(x.device).reshape(-1, 1, 1, 1), x.flip(-1), x)


def shift(x: Tensor, offsets: Tensor) -> Tensor:
    """Translate images: pixel (i, j) becomes pixel (i, j) + offset, or the nearest one of the edge outside.

    Args:
        x: Images (B, C, H, W).
        offsets: Integers (B, 2), rows and columns.
    """
    check_real("x", x, "images (B, C, H, W)")
    check_real("offsets", offsets, "integers (B, 2)")
    if x.ndim != 4 or offsets.shape != (len(x), 2) or offsets.is_floating_point():
        raise InputError(
            f"shift takes images (B, C, H, W) and two integers each (B, 2), got {tuple(x.shape)} and "
            f"{offsets.dtype} "
            f"{tuple(offsets.shape)}"
        )
    rows, columns = (
        (offset[:, None] + torch.arange(side)).clamp(0, side - 1).to(x.device)
        for offset, side in zip(offsets.unbind(1), x.shape[2:], strict=True)
    )
    each = torch.arange(len(x), device=x.device)[:, None, None]
    return x[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def dequantize(values: Tensor, u: Tensor, spec: DataSpec) -> Tensor:
    """(k + u)/bins, mapped from [0, 1] to spec.range: each bin k fills its interval of width 1/bins.

    In [0, 1] and for 8-bit images x = k/255 this is NCSN's 255/256·x + u/256.

    Args:
        values: Integers 0 … bins-1, (B, *).
        u: Uniform numbers in [0, 1), of the same shape.
        spec: What one example is.

    Returns:
        (B, *) in spec.range, of u's type.
    """
    instance_of("spec", spec, DataSpec, "a DataSpec")
    if spec.bins is None:
        raise InputError("this data is continuous: it has no bins to dequantize (bins is None)")
    for name, given in (("values", values), ("u", u)):
        check_real(name, given, "a tensor (B, *) of numbers")
    if values.shape != u.shape or values.is_floating_point():
        raise InputError(
            f"dequantize takes integer bins and one u for each value, got {values.dtype} "
            f"{tuple(values.shape)} "
            f"and u {tuple(u.shape)}"
        )
    check_device("u", u, values)
    low, high = spec.range
    return low + (high - low) * ((values.to(u.dtype) + u) / spec.bins)


def reduced(x: Tensor, side: int) -> Tensor:
    """Reduce images by averaging areas: each pixel is the mean of the pixels that it covers.

    The published super-resolution models were trained on this (interpolation by "area"). Where `side` does
    not divide H and W, the areas are rounded outwards to whole pixels and overlap.

    Args:
        x: Images (B, C, H, W).
        side: Side in pixels of the result, 1 … min(H, W).

    Returns:
        (B, C, side, side).
    """
    check_real("x", x, "images (B, C, H, W)")
    positive_int("side", side)
    if x.ndim != 4 or not x.is_floating_point() or side > min(x.shape[2:]):
        raise InputError(
            f"images (B, C, H, W) of floating-point numbers are reduced to a side of 1 … min(H, W) pixels; got {brief(side)} "
            f"for {x.dtype} {tuple(x.shape)}"
        )
    return F.adaptive_avg_pool2d(x, side)
