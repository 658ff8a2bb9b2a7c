"""Two-dimensional data whose densities are known: for learning, for plots, and for tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset, tensor
from scorefield.data.sources.opener import Opener, SourceOptions
from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import InputError
from scorefield.runtime.registry import TOYS

__all__ = ["toy"]

_CURVE_NOISE = 0.05
_POINTS = 10_000


def toy(name: str, n: int = _POINTS, seed: int = 0) -> Dataset:
    """n independent points of the plane from a known density.

    - "mixture": ⅕N((−5, −5), I) + ⅘N((5, 5), I), the slow-mixing density of NCSN §3.2.
    - "checkerboard": density 1/8 on the squares of [−2, 2)² where ⌊x⌋ + ⌊y⌋ is even.

    The others are curves with noise N(0, 0.05² I), u uniform in [0, 1):

    - "moons": two half circles with equal weight, (cos πu − ½, sin πu − ¼) and (½ − cos πu, ¼ − sin πu).
    - "spiral": two arms with equal weight, of radius 2√u at angle 3π√u and at 3π√u + π.
    - "swiss-roll": one arm, of radius 4θ/9π at angle θ = 3π/2·(1 + 2u).

    Args:
        name: "mixture", "checkerboard", "moons", "spiral" or "swiss-roll".
        n: Number of points, at least 1.
        seed: Points of a seed are always the same; the first ones do not depend on n.

    Returns:
        Continuous data (n, 2), unlabelled.

    Raises:
        InputError: For other names and for n < 1.
    """
    make: Callable[[Tensor, Tensor], Tensor] = TOYS.find(name, "a toy")
    positive_int("the number of points", n)
    noise = NoiseSource(seed)
    u, z = noise.uniform((n, 2)).double(), noise.normal((n, 2)).double()
    read_as = {"source": f"toy:{name}"} if (n, seed) == (_POINTS, 0) else {}
    return replace(tensor(make(u, z)), source=f"toy:{name}", read_as=read_as)


def mixture(u: Tensor, z: Tensor) -> Tensor:
    return torch.where(u[:, :1] < 0.2, -5.0, 5.0) + z


def moons(u: Tensor, z: Tensor) -> Tensor:
    angle = math.pi * u[:, 1]
    upper = torch.stack([angle.cos() - 0.5, angle.sin() - 0.25], dim=1)
    return torch.where(u[:, :1] < 0.5, upper, -upper) + _CURVE_NOISE * z


def spiral(u: Tensor, z: Tensor) -> Tensor:
    root = u[:, 1].sqrt()
    arm = _polar(2 * root, 3 * math.pi * root)
    return torch.where(u[:, :1] < 0.5, arm, -arm) + _CURVE_NOISE * z


def checkerboard(u: Tensor, z: Tensor) -> Tensor:
    # One uniform number is cut in two: which of the 8 squares, and where in it along x.
    square = (8 * u[:, 0]).floor()
    row = (square / 2).floor()
    column = 2 * (square % 2) + row % 2
    return torch.stack([column + 8 * u[:, 0] - square, row + u[:, 1]], dim=1) - 2


def swiss_roll(u: Tensor, z: Tensor) -> Tensor:
    angle = 1.5 * math.pi * (1 + 2 * u[:, 1])
    return _polar(4 / (9 * math.pi) * angle, angle) + _CURVE_NOISE * z


def _polar(radius: Tensor, angle: Tensor) -> Tensor:
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


class _Toys(Opener):
    def open(self, name: str, options: SourceOptions) -> Dataset:
        if options.side is not None or options.channels is not None:
            raise InputError(f"toy:{name} is points of the plane, not images: remove size and channels")
        return toy(name)

    def own_side(self, name: str, options: SourceOptions) -> None:
        return None

    def knows_size(self, options: SourceOptions) -> bool:
        return True

    def expected(self, options: SourceOptions, labelled: bool) -> DataSpec:
        return DataSpec((2,))


SOURCE = _Toys()
