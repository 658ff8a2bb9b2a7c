"""Solvers of the probability-flow equation, which carries q(x_t) to the data without noise.  [DDIM Eq. 14]

In y = x/α and r = σ/α it reads dy/dr = ε̂(x, t), so a step needs ε̂ and the two levels only. A classifier's gradient shifts ε̂.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.shapes import expand
from scorefield.denoiser import Denoise
from scorefield.samplers.base import Grid, need_levels
from scorefield.samplers.ddim import direction, ends
from scorefield.samplers.grids import listed

__all__ = ["Euler", "Heun"]

# Above this r a step of any sensible grid is so long that averaging ε̂ over it is worse than holding it.
_LARGEST_RATIO = 80.0


@dataclass(frozen=True)
class Euler:
    """y_s = y_t + (r_s − r_t)·ε̂(x_t, t), which is DDIM with η = 0: first order. It walks upwards too (encoding)."""

    guidance: ClassVar[str] = "eps"

    def calls(self, grid: Grid) -> int:
        """One network call a step. InputError for a grid that turns or stands still."""
        direction(self, grid)
        return len(grid) - 1

    def init(self, model: Any, x: Tensor) -> None:
        need_levels(self, model)

    def step(self, model: Denoise, x_t: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, Tensor, None]:
        x0, eps = ends(model, x_t, t, s)
        lo = model.process.level(s)
        return expand(lo.alpha, x_t) * x0 + expand(lo.sigma, x_t) * eps, x0, None


@dataclass(frozen=True)
class Heun:
    """y_s = y_t + (r_s − r_t)·½(ε̂(x_t, t) + ε̂(x_s', s)) with x_s' the Euler step: second order.  [Karras et al. 2022, Alg. 1]

    An Euler step is taken to and from t = 0, where no model is called, and where r exceeds 80 at the noisier end.
    """

    guidance: ClassVar[str] = "eps"

    def calls(self, grid: Grid) -> int:
        """At most two network calls a step, one on a step to or from 0: 2S − 1 for S steps to 0. Steps above r = 80 make
        one call as well, but only the process knows them. InputError for a grid that turns or stands still."""
        direction(self, grid)
        return 2 * (len(grid) - 1) - sum(t == 0 for t in (listed(grid)[0], listed(grid)[-1]))

    def init(self, model: Any, x: Tensor) -> None:
        need_levels(self, model)

    def step(self, model: Denoise, x_t: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, Tensor, None]:
        x0, eps = ends(model, x_t, t, s)
        here, lo = model.process.level(t), model.process.level(s)
        x_s = expand(lo.alpha, x_t) * x0 + expand(lo.sigma, x_t) * eps
        r_t, r_s = here.sigma / here.alpha, lo.sigma / lo.alpha
        if t == 0 or s == 0 or max(r_t, r_s) > _LARGEST_RATIO:
            return x_s, x0, None
        # Euler's step is kept in its x̂0 form and corrected, because x/α cancels where α is small.
        half = lo.alpha * (r_s - r_t) / 2
        return x_s + expand(half, x_t) * (model(x_s, s).guided(s).eps - eps), x0, None
