"""Objectives that train scores: score matching of a bare score, and of scores at noise levels (NCSN).

Both are sums over data dimensions in nats, as the papers write them, not means.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.shapes import expand
from scorefield.models.denoiser import Denoiser
from scorefield.models.score_model import ScoreModel
from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.denoising import weighted_error
from scorefield.objectives.score_matching import (
    MOST_PROJECTIONS,
    ProjectionKind,
    Score,
    denoising_score_matching,
    implicit_score_matching,
    projections,
    sliced_score_matching,
    sliced_score_matching_vr,
)
from scorefield.objectives.times import Times, TimeSampling, as_times
from scorefield.runtime.checks import LARGEST, number, one_of, positive_int
from scorefield.runtime.errors import InputError

__all__ = ["NCSN", "ScoreMatching"]

_SLICED = {"sliced": sliced_score_matching, "sliced-vr": sliced_score_matching_vr}
_PROJECTIONS = ("rademacher", "gaussian", "sphere")


class ScoreMatching(Objective):
    """The loss of a score without noise levels on the data, or on the data with a little noise.

    All methods have the same minimiser, ∇ log of the density of x_0 + σε.

    Args:
        model: A ScoreModel.
        method: "implicit" tr ∇s + ½‖s‖² [SM Theorem 1], "sliced" vᵀ∇s v + ½(vᵀs)², "sliced-vr" vᵀ∇s v +
            ½‖s‖² [SSM §3], or "denoising" ½‖s(x + σε) + ε/σ‖² [DSM §4].
        projections: How many v an example; of the sliced methods only.
        projection: The distribution of v, see `projections`; of the sliced methods only.
        sigma: Standard deviation σ of the noise added to the data, in its units. "denoising" needs σ > 0;
            the others need it where the data lie on a lower-dimensional set and their density has no score
            (NCSN §3.1 takes σ = 0.01).
    """

    trains = ScoreModel
    model: ScoreModel

    def __init__(
        self,
        model: ScoreModel,
        method: Literal["implicit", "sliced", "sliced-vr", "denoising"] = "sliced-vr",
        projections: int = 1,
        projection: ProjectionKind = "rademacher",
        sigma: float = 0.0,
    ) -> None:
        super().__init__()
        self.check_model(model)
        one_of("method", method, ("implicit", *_SLICED, "denoising"))
        sigma = number("sigma, a standard deviation,", sigma, at_least=0, at_most=LARGEST)
        if method == "denoising" and not sigma >= 1 / LARGEST:
            raise InputError(
                f'sigma is a standard deviation, and positive for method="denoising"; got {sigma!r}'
            )
        _check_projections(projections, projection)
        self.model = model
        self.method, self.projections, self.projection, self.sigma = (
            method,
            projections,
            projection,
            sigma,
        )
        self.differentiates = method != "denoising" or model.has_energy

    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        """The loss of each example. Draws ε where σ > 0, then the projections.

        Args:
            x0: Data (B, *).
            y: Not used: bare scores are unconditional.
            noise: Where every draw comes from.
            arrays: Not used.

        Returns:
            The losses (B,), without times and parts.
        """
        eps = noise.normal_like(x0) if self.sigma else None
        if self.method == "denoising" and eps is not None:
            loss = denoising_score_matching(self.model.score, x0, eps, self.sigma)
        else:
            x = x0 if eps is None else x0 + self.sigma * eps
            loss = _implicit_or_sliced(self, self.model.score, x, noise)
        return Loss(loss, None, {})


class NCSN(Objective):
    """Score matching at noise levels, E_t λ(σ_t)·ℓ(s(·, t)) with λ(σ) = σ².  [NCSN Eq. 5–6]

    Args:
        model: A Denoiser of any parametrization on any process; s is its score at x_t = α x_0 + σ ε.
        times: Which t are drawn, as in Simple. Default: uniform, which makes the expectation the paper's mean over
            levels.
        method: "denoising" ℓ = ½‖s + ε/σ‖², so that the loss is ½ Σ|ε̂ − ε|² over dimensions; "sliced" or
            "sliced-vr", the losses of ScoreMatching at x_t.
        projections: Projections per example, of the sliced methods.
        projection: Their distribution, "rademacher", "gaussian" (as NCSN's code) or "sphere".
    """

    model: Denoiser
    times: TimeSampling

    def __init__(
        self,
        model: Denoiser,
        times: Times = None,
        method: Literal["denoising", "sliced", "sliced-vr"] = "denoising",
        projections: int = 1,
        projection: ProjectionKind = "rademacher",
    ) -> None:
        super().__init__()
        self.check_model(model)
        one_of("method", method, ("denoising", *_SLICED))
        _check_projections(projections, projection)
        self.model = model
        self.times = as_times(times, model.process)
        self.method, self.projections, self.projection = method, projections, projection
        self.differentiates = method != "denoising"

    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        """The loss of each example. Draws t, then ε, then the projections.

        Args:
            x0: Data (B, *) in the model's range.
            y: Labels (B,) int64, or None.
            noise: Where every draw comes from.
            arrays: What the model is conditioned on besides, (B, *) by name.

        Returns:
            The losses (B,), the times drawn, and with the denoising method the part "mse", what Simple
            minimises.
        """
        t, importance = self.times.draw(self.model.process, x0.shape[0], noise)
        eps = noise.normal_like(x0)
        if self.method == "denoising":
            mse = weighted_error(self.model, x0, y, t, eps, arrays=arrays)
            loss, parts = x0[0].numel() / 2 * mse, {"mse": (importance.to(mse) * mse).detach()}
        else:
            x_t, sigma = self.model.process.sample(x0, t, eps), self.model.process.level(t).sigma
            bare = _implicit_or_sliced(self, lambda x: self.model(x, t, y, **arrays).score, x_t, noise)
            loss, parts = expand(sigma**2, bare) * bare, {}
        return Loss(importance.to(loss) * loss, t, parts, loss.detach())


def _implicit_or_sliced(objective: ScoreMatching | NCSN, score: Score, x: Tensor, noise: Noise) -> Tensor:
    """The losses that need the score's Jacobian, at x (B, *): (B,)."""
    if objective.method == "implicit":
        return implicit_score_matching(score, x)
    return _SLICED[objective.method](
        score, x, projections(objective.projection, x, noise, objective.projections)
    )


def _check_projections(count: int, kind: str) -> None:
    positive_int("projections", count, at_most=MOST_PROJECTIONS)
    one_of("projection", kind, _PROJECTIONS)
