"""Gaussian mixtures: data whose noisy score, x̂0, likelihood and class posterior are exact at every level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scorefield.core.noise import Noise, as_noise
from scorefield.core.prediction import Level, Prediction
from scorefield.core.shapes import DataSpec, check_batch_of, check_real
from scorefield.models.base import ClassifierModel, GaussianModel
from scorefield.process.base import GaussianProcess, Time
from scorefield.runtime.checks import LARGEST, brief, instance_of, numbers, positive_int
from scorefield.runtime.errors import InputError

__all__ = ["GaussianMixture", "MixtureClassifier", "MixtureDenoiser"]

_MOST_SAMPLES = 10**8
_CLEAN = Level(torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))


class GaussianMixture:
    """p(x) = Σ_k w_k N(x; m_k, C_k).

    Kept in float64; results have x's dtype. Under x_t = α x_0 + σ ε component k becomes N(α m_k, α² C_k + σ²
    I), so every method is exact at any level. x may have any shape (B, *) with D values an example.

    Args:
        means: m_k, (K, D).
        covariances: C_k, (K, D, D), symmetric positive semi-definite.
        weights: w_k, (K,), positive, scaled to sum to 1. Default: all the same.
    """

    def __init__(
        self,
        means: Tensor | Sequence,
        covariances: Tensor | Sequence,
        weights: Tensor | Sequence | None = None,
    ) -> None:
        self.means = numbers("means", means)
        self.covariances = numbers("covariances", covariances)
        if (
            self.means.ndim != 2
            or not self.means.numel()
            or self.covariances.shape != (*self.means.shape, self.means.shape[1])
        ):
            raise InputError(
                "a mixture needs means (K, D) and covariances (K, D, D); "
                f"got {tuple(self.means.shape)} and {tuple(self.covariances.shape)}"
            )
        K, self.D = self.means.shape
        self.weights = torch.ones(K, dtype=torch.float64) if weights is None else numbers("weights", weights)
        if self.weights.shape != (K,) or not bool(
            ((self.weights >= 1 / LARGEST) & (self.weights <= LARGEST)).all()
        ):
            raise InputError(f"weights must be {K} positive numbers, one a component; got {brief(weights)}")
        if bool((self.means.abs() > LARGEST).any() or (self.covariances.abs() > LARGEST**2).any()):
            raise InputError(
                f"means go up to {LARGEST:g} and covariances to their square, which float32 can hold"
            )
        self.weights = self.weights / self.weights.sum()
        self._variances, self._axes = torch.linalg.eigh(self.covariances)
        if not torch.allclose(self.covariances, self.covariances.mT) or bool(
            (self._variances < -1e-12).any()
        ):
            raise InputError("every covariance must be symmetric and positive semi-definite")
        self._variances = self._variances.clamp_min(0)

    def __repr__(self) -> str:
        return f"GaussianMixture(components={len(self.weights)}, dimensions={self.D})"

    def log_prob(self, x: Tensor, level: Level = _CLEAN) -> Tensor:
        """ln p_t(x) in nats, (B,).

        Args:
            x: (B, *), D values an example.
            level: (α_t, σ_t). Default: the data itself.
        """
        return torch.logsumexp(self._joint(x, level), dim=1).to(x)

    def score(self, x: Tensor, t: Time | None = None, *, level: Level = _CLEAN) -> Tensor:
        """∇ log p_t(x), (B, *).

        Args:
            x: (B, *), D values an example.
            t: Must be None: a mixture alone has no times.
            level: (α_t, σ_t). Default: the data itself.
        """
        if t is not None:
            raise InputError(
                "a mixture has no times of its own: call mixture.denoiser(process).score(x, t), or give level="
            )
        z, var = self._axes_coordinates(x, level)
        each = -torch.einsum("kij,bkj->bki", self._axes, z / var)
        return self._average(each, x, level)

    def x0(self, x: Tensor, level: Level) -> Tensor:
        """E[x_0 | x_t = x], (B, *): m_k + α C_k (α² C_k + σ² I)^{-1} (x − α m_k), averaged over p(k | x_t).

        Args:
            x: x_t, (B, *), D values an example.
            level: (α_t, σ_t).
        """
        alpha, _ = _rows(level)
        z, var = self._axes_coordinates(x, level)
        each = self.means + alpha * torch.einsum("kij,bkj->bki", self._axes, self._variances * z / var)
        return self._average(each, x, level)

    def posterior(self, x: Tensor, level: Level = _CLEAN) -> Tensor:
        """p(k | x_t = x), (B, K).

        Args:
            x: x_t, (B, *), D values an example.
            level: (α_t, σ_t). Default: the data itself.
        """
        return torch.softmax(self._joint(x, level), dim=1).to(x)

    def sample(self, n: int, noise: Noise | None = None) -> Tensor:
        """n exact samples, (n, D) float64.

        Args:
            n: Number of samples.
            noise: Where the draws come from. Default: a fresh seed.
        """
        x, _ = self.sample_labelled(n, noise)
        return x

    def sample_labelled(self, n: int, noise: Noise | None = None) -> tuple[Tensor, Tensor]:
        """n exact samples and the components they came from: (n, D) float64 and (n,) int64.

        Args:
            n: Number of samples.
            noise: Where the draws come from. Default: a fresh seed.
        """
        positive_int("n, the number of samples,", n, at_most=_MOST_SAMPLES)
        noise = as_noise(noise)
        u = noise.uniform((n, 1)).double()
        k = torch.searchsorted(self.weights.cumsum(0), u[:, 0]).clamp_max(len(self.weights) - 1)
        z = noise.normal((n, self.D)).double()
        return self.means[k] + torch.einsum("bij,bj->bi", self._axes[k], self._variances[k].sqrt() * z), k

    def at(self, level: Level) -> GaussianMixture:
        """The mixture that x_t follows: p_t itself.

        Args:
            level: (α_t, σ_t), one level.
        """
        alpha, sigma = (value.double() for value in _checked_level(level))
        if alpha.ndim:
            raise InputError(f"a mixture is diffused to one level at a time, got {len(alpha)}")
        eye = torch.eye(self.D, dtype=torch.float64)
        return GaussianMixture(alpha * self.means, alpha**2 * self.covariances + sigma**2 * eye, self.weights)

    def denoiser(self, process: GaussianProcess) -> MixtureDenoiser:
        """The exact model of this data under `process`.

        Args:
            process: A Gaussian process.
        """
        return MixtureDenoiser(self, process)

    def classifier(self, process: GaussianProcess) -> MixtureClassifier:
        """(x_t, t) -> ln p(k | x_t), the exact noisy classifier whose classes are the components.

        Args:
            process: A Gaussian process.
        """
        return MixtureClassifier(self, process)

    def _axes_coordinates(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """x − α m_k along the principal axes of C_k, (B, K, D), and the variances of x_t along them."""
        check_batch_of("x", x)
        check_real("x", x)
        flat = x.reshape(x.shape[0], -1).to("cpu", torch.float64)
        if flat.shape[1] != self.D:
            raise InputError(
                f"this mixture is over {self.D} dimensions, but an example has {flat.shape[1]} values"
            )
        alpha, sigma = _rows(level)
        if len(alpha) not in (1, len(flat)):
            raise InputError(f"{len(alpha)} levels were given for {len(flat)} examples")
        z = torch.einsum("kij,bki->bkj", self._axes, flat[:, None] - alpha * self.means)
        var = alpha**2 * self._variances + sigma**2
        if bool((var <= 0).any()):
            raise InputError(
                "a component without variance in some direction has no density there without noise: give a level with "
                "σ > 0, or covariances that are positive definite"
            )
        return z, var

    def _joint(self, x: Tensor, level: Level) -> Tensor:
        """ln w_k + ln N(x; α m_k, α² C_k + σ² I), (B, K)."""
        z, var = self._axes_coordinates(x, level)
        log_normal = -0.5 * (z**2 / var + var.log() + math.log(2 * math.pi)).sum(dim=-1)
        return self.weights.log() + log_normal

    def _average(self, each: Tensor, x: Tensor, level: Level) -> Tensor:
        """Σ_k p(k | x_t) each_k in x's shape and dtype."""
        posterior = torch.softmax(self._joint(x, level), dim=1)
        return (posterior[..., None] * each).sum(dim=1).reshape(x.shape).to(x)


class MixtureDenoiser(GaussianModel):
    """The exact Denoise of a mixture: x̂0 = E[x_0 | x_t].

    Args:
        mixture: The distribution of the data.
        process: A Gaussian process.
    """

    def __init__(self, mixture: GaussianMixture, process: GaussianProcess) -> None:
        self.mixture, self.process = _checked_pair(mixture, process)
        self.data = DataSpec((mixture.D,))

    def __repr__(self) -> str:
        return f"MixtureDenoiser({self.mixture!r}, {self.process!r})"

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        level = self.process.level(self.process.positive_time(t))
        x0 = self.mixture.x0(x_t, level)
        return Prediction(x_t, level, x0, raw=x0)

    def score(self, x: Tensor, t: Time | None = None) -> Tensor:
        """∇ log p_t(x), (B, *).

        Args:
            x: (B, *), D values an example.
            t: A number or (B,), in [0, T]. Default: the data itself.
        """
        return self.mixture.score(x) if t is None else self.mixture.score(x, level=self.process.level(t))


class MixtureClassifier(ClassifierModel):
    """(x_t, t) -> ln p(k | x_t), (B, K), exact and differentiable in x_t; the class is the component that x_0
    came from.

    Args:
        mixture: The distribution of the data.
        process: A Gaussian process.
    """

    def __init__(self, mixture: GaussianMixture, process: GaussianProcess) -> None:
        self.process: GaussianProcess
        self.mixture, self.process = _checked_pair(mixture, process)

    def __repr__(self) -> str:
        return f"MixtureClassifier({self.mixture!r}, {self.process!r})"

    @property
    def num_classes(self) -> int:
        return len(self.mixture.weights)

    def __call__(self, x_t: Tensor, t: Time) -> Tensor:
        return torch.log_softmax(self.mixture._joint(x_t, self.process.level(t)), dim=1).to(x_t)


def _checked_pair(mixture: object, process: object) -> tuple[GaussianMixture, GaussianProcess]:
    expected = "a Gaussian process such as sf.process.cosine(1000)"
    if not isinstance(process, GaussianProcess):
        raise InputError(f"process must be {expected}, got {brief(process)}")
    return instance_of("mixture", mixture, GaussianMixture, "a GaussianMixture"), process


def _checked_level(level: object) -> Level:
    fits = (
        isinstance(level, tuple)
        and len(level) == 2
        and all(isinstance(c, Tensor) and c.ndim <= 1 for c in level)
    )
    if not fits or not isinstance(level, Level):
        raise InputError(f"a level is α and σ, such as process.level(t); got {brief(level)}")
    return level


def _rows(level: Level) -> tuple[Tensor, Tensor]:
    """α and σ shaped to broadcast over (B, K, D)."""
    level = _checked_level(level)
    return level.alpha.double().reshape(-1, 1, 1), level.sigma.double().reshape(-1, 1, 1)
