"""Denoising objectives: the regression of ε, x_0, v or the score at random noise levels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.core.noise import Noise
from scorefield.core.shapes import expand, mean_flat
from scorefield.denoiser import Denoiser
from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.times import TimeSampling, UniformTimes
from scorefield.objectives.weighting import WEIGHTINGS, weight

__all__ = ["Simple", "weighted_error"]


def weighted_error(model: Denoiser, x0: Tensor, y: Tensor | None, t: Tensor, eps: Tensor, weighting: str = "eps") -> Tensor:
    """w(t)·mean|ε̂ − ε|² an example, (B,), computed as w·(α c_out/σ)²·mean|F − target|².

    target = (x_0 − c_skip x_t)/c_out. The two forms are equal, but dividing by a small σ or α is never needed here.
    x0, eps: (B, *); t: (B,).
    """
    pred = model(model.process.sample(x0, t, eps), t, y)
    c = model.coefficients(t)
    target = (x0 - expand(c.skip, x0) * pred.x_t) / expand(c.out, x0)
    alpha, sigma = pred.level
    scale = weight(weighting, model, t) * (alpha * c.out / sigma) ** 2
    error = mean_flat((pred.raw - target) ** 2)
    return scale.to(error) * error


class Simple(Objective):
    """L_simple = E_{t, ε} w(t)·mean|ε̂ − ε|².  [DDPM Eq. 14 with w = 1]

    model: a Denoiser.   weighting: "eps" (w = 1), "x0", "v", "network", each the plain mean squared error of that quantity.
    times: which t are drawn; uniform unless given.
    """

    def __init__(self, model: Denoiser, weighting: str = "eps", times: TimeSampling | None = None) -> None:
        super().__init__()
        if weighting not in WEIGHTINGS:
            raise InputError(f"weighting must be one of {', '.join(WEIGHTINGS)}; got {weighting!r}")
        self.model = model
        self.weighting = weighting
        self.times = times or UniformTimes()

    @property
    def spec(self) -> dict[str, Any]:
        return {"kind": "simple", "weighting": self.weighting}

    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise) -> Loss:
        t, importance = self.times.draw(self.model.process, x0.shape[0], noise)
        error = weighted_error(self.model, x0, y, t, noise.normal_like(x0), self.weighting)
        return Loss(importance.to(error) * error, t, {"mse": error.detach()})
