"""Points of the plane that the Field panel learns: toys, mixtures whose score is exact, and points drawn by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.data import toy
from scorefield.oracle import GaussianMixture
from scorefield.runtime.checks import one_of
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options
from scorefield.runtime.registry import TOYS

__all__ = ["DRAWN_WIDTH", "MIXTURES", "POINTS", "PlaneSource", "SourceRequest", "open_source"]

DRAWN_WIDTH = 0.05  # standard deviation around a point that was drawn, that of the toys' curves
_SMOOTHING = 0.1  # standard deviation of the kernels that estimate a density
POINTS = 8000  # of a source
_KERNELS = 600
_MOST_DRAWN, _LARGEST = 500, 3.0
_DRAWN_REACH = 3.0
_MARGIN = 1.15


def _ring(count: int, radius: float, std: float) -> GaussianMixture:
    angles = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    means = radius * torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(means, std**2 * torch.eye(2, dtype=torch.float64).expand(count, 2, 2))


MIXTURES: Mapping[str, GaussianMixture] = {
    "two-clusters": GaussianMixture(
        [[-1.2, 0.0], [1.2, 0.4]], [[[0.08, 0.0], [0.0, 0.08]], [[0.05, 0.02], [0.02, 0.12]]], [0.8, 0.2]
    ),
    "three-classes": GaussianMixture(
        [[-0.9, -0.6], [0.9, -0.6], [0.0, 0.95]], (0.4 * torch.eye(2)).expand(3, 2, 2)
    ),
    "ring": _ring(8, 1.6, 0.15),
}
# The toy whose density is a mixture: data.toy("mixture").
_TWO_MODES = GaussianMixture([[-5.0, -5.0], [5.0, 5.0]], torch.eye(2).expand(2, 2, 2), [0.2, 0.8])


class SourceRequest(Options):
    """What is learned: a toy or a mixture by its name, or points drawn by hand."""

    kind: Literal["toy", "mixture", "drawn"] = "toy"
    name: str = "moons"
    points: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class PlaneSource:
    """A distribution in the plane.

    Attributes:
        points: Independent draws, (N, 2) float32.
        mixture: The distribution itself where it is a mixture, whose score is exact; otherwise None.
        reach: Half the side of the square around 0 that the page shows.
    """

    points: Tensor
    mixture: GaussianMixture | None
    reach: float

    @cached_property
    def density(self) -> GaussianMixture:
        """The mixture, or a kernel estimate of the density from the first points."""
        if self.mixture is not None:
            return self.mixture
        kernels = self.points[:_KERNELS]
        width = _SMOOTHING**2 * torch.eye(2, dtype=torch.float64)
        return GaussianMixture(kernels.double(), width.expand(len(kernels), 2, 2))

    def exact(self) -> GaussianMixture:
        """The mixture. InputError where the distribution is none."""
        if self.mixture is None:
            raise InputError(
                "the exact score of this toy is not known: take the learned model, or a mixture as the source"
            )
        return self.mixture


@lru_cache(maxsize=16)
def open_source(request: SourceRequest) -> PlaneSource:
    """The distribution that a request names.

    Raises:
        InputError: For an unknown name, and for points that are too many, too few or outside the square.
    """
    if request.kind == "drawn":
        return _drawn(request.points)
    if request.kind == "mixture":
        one_of("the mixture", request.name, MIXTURES)
        return _of_mixture(MIXTURES[request.name])
    one_of("the toy", request.name, TOYS)
    points = toy(request.name, POINTS).batch(torch.arange(POINTS))[0]
    mixture = _TWO_MODES if request.name == "mixture" else None
    return PlaneSource(points, mixture, _reach(points))


def _drawn(points: tuple[tuple[float, float], ...]) -> PlaneSource:
    """Each point stands for N(point, 0.05² I), all with the same weight."""
    if not 1 <= len(points) <= _MOST_DRAWN:
        raise InputError(f"draw 1 to {_MOST_DRAWN} points; there are {len(points)}")
    means = torch.tensor(points, dtype=torch.float64)
    if bool((means.abs() > _LARGEST).any()):
        raise InputError(f"drawn points lie within ±{_LARGEST:g}")
    width = DRAWN_WIDTH**2 * torch.eye(2, dtype=torch.float64)
    mixture = GaussianMixture(means, width.expand(len(points), 2, 2))
    return PlaneSource(mixture.sample(POINTS, NoiseSource(0)).float(), mixture, _DRAWN_REACH)


def _of_mixture(mixture: GaussianMixture) -> PlaneSource:
    points = mixture.sample(POINTS, NoiseSource(0)).float()
    return PlaneSource(points, mixture, _reach(points))


def _reach(points: Tensor) -> float:
    """Room for the data and for the prior N(0, I)."""
    return max(3.0, math.ceil(10 * _MARGIN * float(points.abs().max())) / 10)
