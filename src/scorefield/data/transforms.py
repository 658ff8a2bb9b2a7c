"""Random changes to a batch. Their randomness is an argument, so it can belong to the example, not the batch."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.core.shapes import DataSpec

__all__ = ["dequantize", "flip"]


def flip(x: Tensor, coin: Tensor) -> Tensor:
    """Mirror left and right the images whose coin is below 1/2.   x: (B, C, H, W); coin: (B,), uniform in [0, 1)."""
    if x.ndim != 4 or coin.shape != x.shape[:1]:
        raise InputError(f"flip takes images (B, C, H, W) and one coin each (B,), got {tuple(x.shape)} and {tuple(coin.shape)}")
    return torch.where((coin < 0.5).to(x.device).reshape(-1, 1, 1, 1), x.flip(-1), x)


def dequantize(levels: Tensor, u: Tensor, spec: DataSpec) -> Tensor:
    """(k + u)/bins, mapped from [0, 1] to spec.range: each level k fills its own interval of width 1/bins.

    levels: (B, *), integers 0 … bins-1; u: the same shape, uniform in [0, 1). Returns u's dtype. In [0, 1] and for
    8-bit images x = k/255 this is NCSN's 255/256·x + u/256.
    """
    if spec.bins is None:
        raise InputError("this data is continuous: it has no levels to dequantize (bins is None)")
    if levels.shape != u.shape or levels.is_floating_point():
        raise InputError(
            f"dequantize takes integer levels and one u for each value, got {levels.dtype} {tuple(levels.shape)} "
            f"and u {tuple(u.shape)}"
        )
    low, high = spec.range
    return low + (high - low) * ((levels.to(u.dtype) + u) / spec.bins)
