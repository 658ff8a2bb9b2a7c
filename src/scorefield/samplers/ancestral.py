"""Ancestral sampling: draw x_s from p(x_s | x_t).  [DDPM Algorithm 2]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

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

Last = Literal["mean", "sample"]


@dataclass(frozen=True)
class Ancestral(Sampler[float | None]):
    """x_s = mean + std·z of p(x_s | x_t); no noise on the step to s = 0, unless last="sample".

    The gradient g of a classifier shifts the mean: N(μ + Σ g, Σ).  [ADM Algorithm 1]
    g is taken at x_t and t, as published, or at μ and s, around which the paper expands log p(y|x_s); there
    is no classifier at s = 0, so there it is taken at x_t too.

    Args:
        variance: "lower" (β̃), "upper" (β) or "learned" (the network's variance half).
        last: What a step to s = 0 gives: "mean", that of p(x_0 | x_t), as published [DDPM Algorithm 2], or "sample", a draw
            of p(x_0 | x_t) itself, whose variance there is that of the variational bound. Rounded to the values of the
            data it is a draw of the discretized decoder. [DDPM Eq. 13]
    """

    variance: Variance = "lower"
    last: Last = "mean"
    guidance = "mean"

    def __post_init__(self) -> None:
        one_of("variance", self.variance, get_args(Variance))
        one_of("last, what a step to s = 0 gives,", self.last, get_args(Last))

    def __repr__(self) -> str:
        # Stored samples are found by this text, which did not have `last`: its default is left out.
        last = "" if self.last == "mean" else f", last={self.last!r}"
        return f"Ancestral(variance={self.variance!r}{last})"

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
        draws = s > 0 or self.last == "sample"
        # At s = 0 "lower" has its variance for the bound's sake only: where nothing is drawn from it there, it shifts
        # by nothing.
        if pred.log_p_grad is not None and (draws or self.variance != "lower"):
            where = (p.mean, s) if pred.grad_at == "mean" and s > 0 else (x_t, t)
            p = Normal(p.mean + p.var * pred.log_p_grad(*where), p.var)
        x_s = p.sample(noise.normal_like(x_t)) if draws else p.mean
        return x_s, pred.x0, t
