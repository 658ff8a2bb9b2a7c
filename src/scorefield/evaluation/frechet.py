"""The Fréchet distance between two sets of features, each summarized by its mean and covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.core.shapes import check_real
from scorefield.runtime.checks import check_finite, instance_of, positive_int
from scorefield.runtime.errors import InputError
from scorefield.runtime.free_memory import needs_memory

__all__ = ["Moments", "check_features", "enough", "frechet_distance"]


class Moments:
    """Streaming count, mean and covariance of features in float64, whatever the batches.

    A batch is merged by Chan, Golub & LeVeque's pairwise update of the mean and of the centred sum of
    squares, so no large numbers are subtracted.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.empty(0, dtype=torch.float64)
        self._scatter = torch.empty(0, 0, dtype=torch.float64)  # Σ (f - mean)(f - mean)ᵀ

    def update(self, features: Tensor) -> Moments:
        """Add a batch of features.

        Args:
            features: (B, D).

        Raises:
            InputError: For another shape, another D than before, or values that are not finite.
        """
        _check_table(features, "B", self.dimension if self.count else None)
        if not len(features):
            return self
        if not self.count:  # the batch's scatter, the sum of all, and their sum
            size = features.shape[1]
            needs_memory(3 * 8 * size**2, f"the covariance of {size:,} features")
        batch = features.detach().to("cpu", torch.float64)
        mean = batch.mean(dim=0)
        centred = batch - mean
        scatter, count = centred.T @ centred, self.count + len(batch)
        if self.count:
            shift = mean - self._mean
            scatter += self._scatter + torch.outer(shift, shift) * (self.count * len(batch) / count)
            mean = self._mean + shift * (len(batch) / count)
        self.count, self._mean, self._scatter = count, mean, scatter
        return self

    @classmethod
    def of(cls, count: int, mean: Tensor, scatter: Tensor) -> Moments:
        """Moments with the numbers of others, as `count`, `mean` and `scatter` give them.

        Args:
            count: Number of examples.
            mean: (D,) float64.
            scatter: Σ (f − mean)(f − mean)ᵀ, (D, D) float64.
        """
        moments = cls()
        moments.count, moments._mean, moments._scatter = count, mean, scatter
        return moments

    @property
    def dimension(self) -> int:
        """D, the number of features; 0 before the first update."""
        return len(self._mean)

    @property
    def mean(self) -> Tensor:
        """(D,) float64."""
        return self._mean

    @property
    def scatter(self) -> Tensor:
        """Σ (f - mean)(f - mean)ᵀ, (D, D) float64."""
        return self._scatter

    @property
    def cov(self) -> Tensor:
        """The unbiased covariance (divided by n - 1), (D, D) float64.

        Raises:
            InputError: For fewer than two examples.
        """
        if self.count < 2:
            raise InputError(f"a covariance needs at least 2 examples, got {self.count}")
        return self._scatter / (self.count - 1)

    def warning(self, what: str) -> str | None:
        """What to tell the user if there are too few examples for a covariance of full rank (n > D),
        otherwise None.

        Args:
            what: Whose features these are, such as "the samples".
        """
        problem = enough(self.count, self.dimension)
        return None if problem is None else f"{what}: {problem}"


def enough(count: int, dimension: int) -> str | None:
    """What to tell the user if there are too few examples for a covariance of full rank (n > D), otherwise
    None.

    Args:
        count: n, the number of examples.
        dimension: D, the number of features.
    """
    positive_int("count", count, at_least=0)
    positive_int("dimension", dimension, at_least=0)
    if count > dimension:
        return None
    return f"{count} examples are too few for {dimension} features, whose covariance is then singular; use at least {dimension + 1}"


def check_features(a: Tensor, b: Tensor) -> None:
    """InputError unless both are finite features (N, D) with one D."""
    for features in (a, b):
        _check_table(features, "N")
    _check_dimensions(a.shape[1], b.shape[1])


def _check_table(features: object, rows: str, columns: int | None = None) -> None:
    table = check_real("features", features, f"a tensor ({rows}, D) of real numbers")
    if table.ndim != 2 or not table.shape[1] or columns not in (None, table.shape[1]):
        raise InputError(f"features must have shape ({rows}, {columns or 'D'}), got {tuple(table.shape)}")
    check_finite(table, "feature vectors", "inspect these images; a model that has diverged produces them")


def _check_dimensions(a: int, b: int) -> None:
    if a != b:
        raise InputError(f"the two sets have {a} and {b} features: compare both in the same ones")


def frechet_distance(a: Moments, b: Moments) -> float:
    """‖m₁ − m₂‖² + tr(C₁ + C₂ − 2 (C₁ C₂)^½)  [Fréchet 1957; Heusel et al. 2017 Eq. 6]

    The squared 2-Wasserstein distance of the normal distributions with these moments, in squared units of the
    features. The last trace is the nuclear norm of C₁^½ C₂^½ (its square times its transpose is C₁^½ C₂
    C₁^½), so that only symmetric roots and singular values are taken and singular covariances need no ε on
    the diagonal. At least 0.

    Estimated from few examples it is too large on average, the more so the fewer: compare equal counts only.

    Args:
        a: Moments m₁ and C₁.
        b: Moments m₂ and C₂.

    Raises:
        InputError: For features of different dimension, and for fewer than two examples.
    """
    for moments in (a, b):
        instance_of("a set", moments, Moments, "Moments of its features")
    _check_dimensions(a.dimension, b.dimension)
    cov_a, cov_b = a.cov, b.cov
    shared = torch.linalg.svdvals(_root(cov_a) @ _root(cov_b)).sum()
    distance = (a.mean - b.mean).square().sum() + cov_a.trace() + cov_b.trace() - 2 * shared
    return max(float(distance), 0.0)


def _root(cov: Tensor) -> Tensor:
    """The symmetric square root of a covariance (D, D); eigenvalues below rounding count as 0."""
    values, vectors = torch.linalg.eigh(cov)
    floor = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    return vectors * torch.where(values > floor, values, 0.0).sqrt() @ vectors.T
