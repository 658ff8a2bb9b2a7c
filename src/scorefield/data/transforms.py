"""Changes to a batch. Where one is random, its randomness is an argument, so it can belong to the example,
not the batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.runtime.errors import InputError

__all__ = ["dequantize", "flip", "reduced", "shift"]


def flip(x: Tensor, coin: Tensor) -> Tensor:
    """Mirror left and right the images whose coin is below 1/2.   x: (B, C, H, W); coin: (B,), uniform in [0,
    1).
    """
    if x.ndim != 4 or coin.shape != x.shape[:1]:
        raise InputError(
            f"flip takes images (B, C, H, W) and one coin each (B,), got {tuple(x.shape)} and {tuple(coin.shape)}"
        )
    return torch.where((coin < 0.5).to(x.device).reshape(-1, 1, 1, 1), x.flip(-1), x)


def shift(x: Tensor, offsets: Tensor) -> Tensor:
    """Pixel (i, j) of each image becomes its pixel (i, j) + offset, or the nearest one of the edge outside.

    x: (B, C, H, W); offsets: (B, 2) integers, rows and columns.
    """
    if x.ndim != 4 or offsets.shape != (len(x), 2) or offsets.is_floating_point():
        raise InputError(
            f"shift takes images (B, C, H, W) and two integers each (B, 2), got {tuple(x.shape)} and {offsets.dtype} "
            f"{tuple(offsets.shape)}"
        )
    rows, columns = (
        (offset[:, None] + torch.arange(side)).clamp(0, side - 1).to(x.device)
        for offset, side in zip(offsets.unbind(1), x.shape[2:], strict=True)
    )
    each = torch.arange(len(x), device=x.device)[:, None, None]
    return x[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def dequantize(values: Tensor, u: Tensor, spec: DataSpec) -> Tensor:
    """(k + u)/bins, mapped from [0, 1] to spec.range: each level k fills its own interval of width 1/bins.

    values: (B, *), integers 0 … bins-1; u: the same shape, uniform in [0, 1). Returns u's dtype. In [0, 1]
    and for 8-bit images x = k/255 this is NCSN's 255/256·x + u/256.
    """
    if spec.bins is None:
        raise InputError("this data is continuous: it has no levels to dequantize (bins is None)")
    if values.shape != u.shape or values.is_floating_point():
        raise InputError(
            f"dequantize takes integer levels and one u for each value, got {values.dtype} {tuple(values.shape)} "
            f"and u {tuple(u.shape)}"
        )
    low, high = spec.range
    return low + (high - low) * ((values.to(u.dtype) + u) / spec.bins)


def reduced(x: Tensor, side: int) -> Tensor:
    """Images (B, C, H, W) -> (B, C, side, side): each pixel is the mean of the rectangle of pixels that it
    covers.

    What the published super-resolution models were trained on (interpolation by "area"). Where side divides H
    and W the rectangles do not overlap; otherwise they are rounded outwards to whole pixels.
    """
    if x.ndim != 4 or not 1 <= side <= min(x.shape[2:]):
        raise InputError(
            f"images (B, C, H, W) are reduced to a side of 1 … min(H, W) pixels; got {side} for {tuple(x.shape)}"
        )
    return F.adaptive_avg_pool2d(x, side)
