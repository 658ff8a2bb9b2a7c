"""Ancestral sampling: draw x_s from p(x_s | x_t).  [DDPM Algorithm 2]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from torch import Tensor

from scorefield.core.distributions import Normal
from scorefield.core.noise import Noise
from scorefield.models.base import Denoise
from scorefield.models.foreign import as_model
from scorefield.process.transitions import Variance, reverse
from scorefield.runtime.checks import one_of
from scorefield.runtime.errors import IncompatibleModel
from scorefield.samplers.base import Sampler

__all__ = ["Ancestral"]


@dataclass(frozen=True)
class Ancestral(Sampler[float | None]):
    """x_s = mean + std·z of p(x_s | x_t); no noise on the step to s = 0.

    The gradient g of a classifier shifts the mean: N(μ + Σ g, Σ).  [ADM Algorithm 1]
    g is taken at x_t and t, as published, or at μ and s, around which the paper expands log p(y|x_s); there
    is no classifier at s = 0, so there it is taken at x_t too.

    Args:
        variance: "lower" (β̃), "upper" (β) or "learned" (the network's variance half).
    """

    variance: Variance = "lower"
    guidance = "mean"

    def __post_init__(self) -> None:
        one_of("variance", self.variance, get_args(Variance))

    def check_model(self, model: Denoise) -> None:
        super().check_model(model)
        if self.variance == "learned" and as_model(model).variance is None:
            raise IncompatibleModel(
                'Ancestral("learned") needs a model with a variance head, and this one has none: use "lower" or "upper", or train '
                'one with Denoiser(..., variance="range")'
            )

    def init(self, model: Denoise, x: Tensor) -> float | None:
        """The grid time above t, which the variance of the last step needs (None: the process's own next
        level).

        Args:
            model: Not used.
            x: Not used.
        """
        return None

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: float | None, noise: Noise
    ) -> tuple[Tensor, Tensor, float]:
        process, pred = model.process, model(x_t, t)
        above = state if state is not None else (t + 1 if t + 1 <= process.T else None)
        p = reverse(
            pred,
            process.level(t),
            process.level(s),
            self.variance,
            None if above is None else process.level(above),
        )
        # At s = 0 "lower" has its variance for the bound's sake only: sampling has none there, so it shifts
        # by nothing.
        if pred.log_p_grad is not None and (s > 0 or self.variance != "lower"):
            where = (p.mean, s) if pred.grad_at == "mean" and s > 0 else (x_t, t)
            p = Normal(p.mean + p.var * pred.log_p_grad(*where), p.var)
        x_s = p.mean if s == 0 else p.sample(noise.normal_like(x_t))
        return x_s, pred.x0, t
