"""Broadcasting and reduction over data dimensions; `DataSpec`, the description of one example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.runtime.checks import check_finite
from scorefield.runtime.errors import InputError

__all__ = ["DataSpec", "are_images", "expand", "mean_flat", "shown", "sum_flat"]

# How far, in bins, a value may lie from its level: far above float32 rounding, far below any real mistake.
_OFF_GRID = 1e-3


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """Bring a coefficient of shape () or (B,) to x's device and dtype, shaped to broadcast over x of shape
    (B, *).
    """
    coefficient = coefficient.to(device=x.device, dtype=x.dtype)
    if coefficient.ndim == 0:
        return coefficient
    return coefficient.reshape(coefficient.shape[0], *[1] * (x.ndim - 1))


def sum_flat(x: Tensor) -> Tensor:
    """Sum over every dimension but the first: (B, *) -> (B,)."""
    return x.reshape(x.shape[0], -1).sum(dim=1)


def mean_flat(x: Tensor) -> Tensor:
    """Mean over every dimension but the first: (B, *) -> (B,)."""
    return x.reshape(x.shape[0], -1).mean(dim=1)


@dataclass(frozen=True)
class DataSpec:
    """Description of one example.

    Attributes:
        shape: Of one example; images are (C, H, W).
        range: The values of the darkest and the brightest bin in the model's space.
        classes: Names of the labels 0 … K − 1; empty where the data has none.
        bins: How many equally spaced values a quantized number can take (8-bit images 256, the embedded
            digits 17); None for continuous data.
    """

    shape: tuple[int, ...]
    range: tuple[float, float] = (-1.0, 1.0)
    classes: tuple[str, ...] = ()
    bins: int | None = None

    def __post_init__(self) -> None:
        if not self.shape or any(n < 1 for n in self.shape):
            raise InputError(f"the shape of an example must have positive sizes, got {tuple(self.shape)}")
        if not self.range[0] < self.range[1]:
            raise InputError(f"range must ascend, got {self.range}")
        if self.bins is not None and self.bins < 2:
            raise InputError(f"bins must be at least 2 (the levels a value can take), got {self.bins}")

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.classes)

    @property
    def dimensions(self) -> int:
        """D, the number of values in one example."""
        return math.prod(self.shape)

    def from_bins(self, levels: Tensor) -> Tensor:
        """Integer levels 0 … bins-1 -> float32 values in `range`: low + (high - low)·k/(bins - 1)."""
        if self.bins is None:
            raise InputError("this data is continuous: it has no levels (bins is None)")
        low, high = self.range
        return levels.to(torch.float32) * ((high - low) / (self.bins - 1)) + low

    def to_bins(self, x: Tensor) -> Tensor:
        """Values in `range` -> the nearest integer levels 0 … bins-1, uint8, clamped; integers are levels
        already, clamped.

        InputError for NaN and infinite values.
        """
        if self.bins is None or self.bins > 256:
            raise InputError(
                f"only data of at most 256 levels can be rounded to levels, and bins is {self.bins}"
            )
        if not x.is_floating_point():
            return x.clamp(0, self.bins - 1).to(torch.uint8)
        return _rounded(x, self.range, self.bins)

    def exact_bins(self, x: Tensor) -> Tensor:
        """The bin of every value, int64.

        Args:
            x: Floating-point values in `range`, or integers, which are bins already.
        Raises:
            InputError: For continuous data, values between bins, and bins outside 0 … bins − 1.
        """
        if self.bins is None:
            raise InputError("this data is continuous: it has no levels (bins is None)")
        low, high = self.range
        position = (x - low) * ((self.bins - 1) / (high - low)) if x.is_floating_point() else x
        level = position.round()
        bad = ~((position - level).abs() <= _OFF_GRID) | (level < 0) | (level > self.bins - 1)
        if bool(bad.any()):
            raise InputError(
                f"the data must lie on its grid of {self.bins} bins from {low:g} to {high:g}, and {int(bad.sum())} of {bad.numel()} "
                f"values do not, the first is {float(x[bad][0]):g}: give quantized data, set the right bins, or use what is for "
                'continuous data (a bound with decoder="density")'
            )
        return level.long()

    def to_uint8(self, x: Tensor) -> Tensor:
        """Values in `range` -> uint8 0 … 255 for a picture, by the data's own levels where it has fewer than
        256.
        """
        if self.bins is not None and self.bins < 256:
            return (self.to_bins(x).to(torch.float32) * (255 / (self.bins - 1))).round().to(torch.uint8)
        return _rounded(x, self.range, 256)


def _rounded(x: Tensor, bounds: tuple[float, float], bins: int) -> Tensor:
    check_finite(x, "images", "the model that made them has diverged")
    low, high = bounds
    return ((x - low) * ((bins - 1) / (high - low))).round().clamp(0, bins - 1).to(torch.uint8)


def shown(values: Tensor) -> str:
    """One number or a few of a vector as text: 2, or [0, 1, 2, … of 64]."""
    if values.ndim == 0:
        return f"{float(values):g}"
    some = ", ".join(f"{float(value):g}" for value in values[:3])
    return f"[{some}{f', … of {len(values)}' if len(values) > 3 else ''}]"


def are_images(shape: Sequence[int]) -> bool:
    """Whether examples of this shape can be shown: (1 or 3, H, W)."""
    return len(shape) == 3 and shape[0] in (1, 3)
