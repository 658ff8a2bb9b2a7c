"""Noise levels (α, σ), and `Prediction`, what a model returns to a sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.core.shapes import expand
from scorefield.runtime.errors import IncompatibleModel

__all__ = ["Level", "Prediction"]


class Level(NamedTuple):
    """A noise level of x_t = α x_0 + σ ε.

    α is what multiplies x_0: √ᾱ_t of DDPM, and not its α_t = 1 − β_t.

    Attributes:
        alpha: α, a float64 CPU tensor in the shape of the t that it belongs to, () or (B,).
        sigma: σ, the same.
    """

    alpha: Tensor
    sigma: Tensor

    @property
    def ratio(self) -> Tensor:
        """σ/α, the standard deviation of the noise of x_t/α: 0 at t = 0, ascending in t, infinite where α = 0."""
        return self.sigma / self.alpha


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model predicts at x_t. It stores x̂0; ε, score and velocity follow from x_t = α x_0 + σ ε.

    Attributes:
        x_t: The state, (B, *).
        level: Its noise level (α, σ).
        x0: x̂0, (B, *).
        raw: The network's output without its variance half.
        var_frac: In [0, 1], (B, *), where Σ is interpolated between its bounds. [Improved DDPM Eq. 15]
        log_p_grad: (x, t) -> scaled ∇ log p(y | x_t = x), (B, *), which x0 does not contain: the sampler
            places it, by `guided` or in the mean of its step.
        log_var: ln Σ of the step to `below`, (B, *), where the network gives it.
        below: The next level of the training process, where `log_var` is given.
        grad_at: Where a mean shift takes the gradient, at "x_t" or at the "mean".
    """

    x_t: Tensor
    level: Level
    x0: Tensor
    raw: Tensor
    var_frac: Tensor | None = None
    log_p_grad: Callable[[Tensor, float | Tensor], Tensor] | None = None
    log_var: Tensor | None = None
    below: Level | None = None
    grad_at: str = "x_t"

    @property
    def eps(self) -> Tensor:
        """ε̂ = (x_t − α x̂0) / σ."""
        alpha, sigma = (expand(c, self.x_t) for c in self.level)
        return (self.x_t - alpha * self.x0) / sigma

    @property
    def score(self) -> Tensor:
        """∇ log p_t(x_t) = −ε̂ / σ = (α x̂0 − x_t) / σ²."""
        alpha, sigma = (expand(c, self.x_t) for c in self.level)
        return (alpha * self.x0 - self.x_t) / sigma**2

    def guided(self, t: float | Tensor) -> Prediction:
        """This prediction with the gradient g = log_p_grad(x_t, t) folded in; itself where there is none.

        The score gains g, so ε̂ becomes ε̂ − σ g and x̂0 becomes x̂0 + (σ²/α) g.  [ADM Algorithm 2]
        Where α = 0 nothing of y is in x_t, so that ∇ log p(y | x_t) is 0: there the prediction is left as it is.

        Args:
            t: The time of this prediction, a number or (B,).

        Raises:
            IncompatibleModel: For a gradient at the mean of a step, which only a sampler that has such a
                mean can place.
        """
        if self.log_p_grad is None:
            return self
        if self.grad_at != "x_t":
            raise IncompatibleModel(
                f'a gradient at the {self.grad_at} of a step cannot shift ε̂, which belongs to x_t: guide with at="x_t", or sample with '
                "Ancestral"
            )
        alpha, sigma = self.level
        gain = torch.where(alpha > 0, sigma**2 / alpha, 0)
        shift = expand(gain, self.x_t) * self.log_p_grad(self.x_t, t)
        return replace(self, x0=self.x0 + shift, log_p_grad=None)

    @property
    def velocity(self) -> Tensor:
        """v̂ = (α ε̂ − σ x̂0) / n with n = √(α² + σ²), the network target of the "v" parametrization (1 for
        VP).
        """
        alpha, sigma = self.level
        n = (alpha**2 + sigma**2).sqrt()
        return expand(alpha / n, self.x_t) * self.eps - expand(sigma / n, self.x_t) * self.x0
