"""Broadcasting and reduction over data dimensions; `DataSpec`, the description of one example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.runtime.checks import LARGEST, brief, check_finite, is_list, number, positive_int
from scorefield.runtime.errors import InputError

__all__ = [
    "DataSpec",
    "are_images",
    "check_batch_of",
    "check_device",
    "check_real",
    "expand",
    "is_true",
    "mean_flat",
    "shown",
    "sum_flat",
]

# How far, in bins, a value may lie from its level: far above float32 rounding, far below any real mistake.
_OFF_GRID = 1e-3
_LARGEST_SIZE = 2**31  # of one dimension of an example
_LARGEST_BINS = 2**24  # integers that float32 tells apart


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """Bring a coefficient of shape () or (B,) to x's device and dtype, shaped to broadcast over x of shape
    (B, *).
    """
    coefficient = coefficient.to(device=x.device, dtype=x.dtype)
    if coefficient.ndim == 0:
        return coefficient
    if coefficient.shape[0] != x.shape[0]:
        raise InputError(
            f"{coefficient.shape[0]} times were given for {x.shape[0]} examples: give one for each, or one number for all"
        )
    return coefficient.reshape(coefficient.shape[0], *[1] * (x.ndim - 1))


def check_batch_of(name: str, x: object, like: Tensor | None = None) -> None:
    """InputError unless x is a batch (B, *) of floating-point numbers with at least one example.

    Its values are not looked at, which would make the host wait for the device.

    Args:
        name: What x is, for the message.
        x: Anything.
        like: A batch whose shape it must have. Default: any.
    """
    if not isinstance(x, Tensor):
        advice = ": convert it by torch.from_numpy" if type(x).__module__ == "numpy" else ""
        raise InputError(f"{name} must be a tensor (B, *), got {brief(x)}{advice}")
    _check_dense(name, x)
    if not x.is_floating_point():
        raise InputError(f"{name} must hold floating-point numbers, got {x.dtype}: convert it by .float()")
    if like is not None:
        if x.shape != like.shape:
            raise InputError(f"{name} must have shape {tuple(like.shape)}, got {tuple(x.shape)}")
        check_device(name, x, like)
    if x.ndim < 1 or not x.numel():
        raise InputError(f"{name} must hold at least one example, (B, *); got shape {tuple(x.shape)}")


def check_real(name: str, x: object, expected: str = "a tensor of numbers") -> Tensor:
    """x, if it is a dense tensor of real numbers whose values can be read.

    Args:
        name: What x is, for the message.
        x: Anything.
        expected: What is expected, in words.
    Raises:
        InputError: For everything else: booleans, complex numbers, a sparse tensor, one on the meta device.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"{name} must be {expected}, got {brief(x)}")
    _check_dense(name, x)
    if x.is_meta:
        raise InputError(f"{name} must be {expected}, got a tensor of the meta device, which has no values")
    if x.is_complex() or x.dtype == torch.bool:
        raise InputError(f"{name} must be {expected}, got one of {x.dtype}")
    return x


def check_device(name: str, x: Tensor, like: Tensor) -> None:
    """InputError unless x lies on the device of `like`."""
    if x.device != like.device:
        raise InputError(f"{name} must be on {like.device}, got a tensor on {x.device}: move it by .to()")


def _check_dense(name: str, x: Tensor) -> None:
    if x.layout != torch.strided:
        raise InputError(f"{name} must be a dense tensor, got one of {x.layout}: convert it by .to_dense()")


def is_true(value: Tensor) -> bool:
    """The truth of a 0-dimensional tensor; False where it cannot be read, as inside torch.func.vmap."""
    try:
        return bool(value)
    except RuntimeError:
        return False


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
        shape, classes = self.shape, self.classes
        if not is_list(shape) or not shape:
            raise InputError(f"the shape of an example must have positive sizes, got {brief(shape)}")
        for size in shape:
            positive_int("a size of an example's shape", size, at_most=_LARGEST_SIZE)
        if not is_list(self.range) or len(self.range) != 2:
            raise InputError(f"range must be two ascending numbers, such as (-1, 1); got {brief(self.range)}")
        low, high = (number("an end of range", end, at_least=-LARGEST, at_most=LARGEST) for end in self.range)
        if not low < high:
            raise InputError(f"range must ascend, got {self.range}")
        if not is_list(classes) or not all(isinstance(name, str) for name in classes):
            raise InputError(f"classes must be a list of names, one per label; got {brief(classes)}")
        if self.bins is not None:
            positive_int("bins, the levels a value can take,", self.bins, at_least=2, at_most=_LARGEST_BINS)

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.classes)

    @property
    def dimensions(self) -> int:
        """D, the number of values in one example."""
        return math.prod(self.shape)

    def from_bins(self, levels: Tensor) -> Tensor:
        """low + (high − low)·k/(bins − 1): integer levels k to values in `range`.

        Args:
            levels: Integers 0 … bins − 1, (*).

        Returns:
            float32 (*).

        Raises:
            InputError: For continuous data, and for levels that are not integers.
        """
        if self.bins is None:
            raise InputError("this data is continuous: it has no levels (bins is None)")
        check_real("levels", levels)
        if levels.is_floating_point():
            raise InputError(f"levels are the integers 0 … {self.bins - 1}, got {levels.dtype}")
        low, high = self.range
        return levels.to(torch.float32) * ((high - low) / (self.bins - 1)) + low

    def to_bins(self, x: Tensor) -> Tensor:
        """The nearest integer level of every value.

        Args:
            x: Floating-point values in `range`, clamped to it, or integers, which are levels already and
                clamped too.

        Returns:
            uint8 0 … bins − 1, in the shape of x.

        Raises:
            InputError: For continuous data, for more than 256 levels, and for NaN and infinite values.
        """
        if self.bins is None or self.bins > 256:
            raise InputError(
                f"only data of at most 256 levels can be rounded to levels, and bins is {self.bins}"
            )
        check_real("x", x)
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
        check_real("x", x)
        low, high = self.range
        position = (x - low) * ((self.bins - 1) / (high - low)) if x.is_floating_point() else x
        level = position.round()
        bad = ~((position - level).abs() <= _OFF_GRID) | (level < 0) | (level > self.bins - 1)
        if bool(bad.any()):
            raise InputError(
                f"the values must lie on the grid of {self.bins} bins from {low:g} to {high:g}, and {int(bad.sum())} of {bad.numel()} "
                f"values do not, the first is {float(x[bad][0]):g}: give quantized data, the right bins, or use "
                'decoder="density" for continuous data'
            )
        return level.long()

    def to_uint8(self, x: Tensor) -> Tensor:
        """Values as a picture has them, by the data's own levels where it has fewer than 256.

        Args:
            x: Floating-point values in `range`, clamped to it.

        Returns:
            uint8 0 … 255, in the shape of x.

        Raises:
            InputError: For NaN and infinite values.
        """
        if self.bins is not None and self.bins < 256:
            return (self.to_bins(x).to(torch.float32) * (255 / (self.bins - 1))).round().to(torch.uint8)
        return _rounded(x, self.range, 256)


def _rounded(x: Tensor, bounds: tuple[float, float], bins: int) -> Tensor:
    check_real("x", x)
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
