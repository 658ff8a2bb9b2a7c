"""Solvers of the probability-flow equation, which carries q(x_t) to the data without noise.  [DDIM Eq. 14]

In y = x/α and r = σ/α it reads dy/dr = ε̂(x, t), so a step needs ε̂ and the two levels only. A classifier's
gradient shifts ε̂.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.shapes import expand
from scorefield.models.base import Denoise
from scorefield.process.base import GaussianProcess, Process
from scorefield.runtime.checks import LARGEST, number
from scorefield.runtime.errors import InputError
from scorefield.samplers.base import Grid, Sampler
from scorefield.samplers.ddim import grid_direction, predict_x0_eps
from scorefield.samplers.grids import as_floats

__all__ = ["LARGEST_RATIO", "Euler", "Heun"]

# Above this r a step of any sensible grid is so long that averaging ε̂ over it is worse than holding it. Grids that start
# at 80 are common, and are not above it by rounding.
_LARGEST, _ROUNDING = 80.0, 1 + 1e-9
LARGEST_RATIO = _LARGEST * _ROUNDING

# So that the noise added is never more than the noise there was.  [Karras et al. 2022, Alg. 2]
_LARGEST_RAISE = math.sqrt(2) - 1


@dataclass(frozen=True)
class Euler(Sampler[None]):
    """y_s = y_t + (r_s − r_t)·ε̂(x_t, t) with y = x/α and r = σ/α, which is DDIM with η = 0: first order. It
    walks upwards too (encoding).
    """

    guidance = "eps"

    def calls(self, grid: Grid) -> int:
        """One network call a step.

        Args:
            grid: Times that strictly descend (sampling) or strictly ascend (encoding).

        Raises:
            InputError: For a grid that turns or stands still.
        """
        grid_direction(self, grid)
        return len(grid) - 1

    def init(self, model: Denoise, x: Tensor) -> None:
        return None

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: None, noise: Noise
    ) -> tuple[Tensor, Tensor, None]:
        x0, eps = predict_x0_eps(model, x_t, t, s)
        lo = model.process.level(s)
        return expand(lo.alpha, x_t) * x0 + expand(lo.sigma, x_t) * eps, x0, None


@dataclass(frozen=True)
class Heun(Sampler[float | None]):
    """y_s = y_t + (r_s − r_t)·½(ε̂(x_t, t) + ε̂(x_s', s)) with x_s' the Euler step: second order.  [Karras et
    al. 2022, Alg. 1]

    An Euler step is taken to and from t = 0, where no model is called, and where r exceeds `largest_ratio` at the
    noisier end. Where r is infinite at t = T, the slopes of dx = x̂0 dα + ε̂ dσ, the same equation, are averaged at every
    r: x_s = x_t + (α_s − α_t)·½(x̂0 + x̂0') + (σ_s − σ_t)·½(ε̂ + ε̂').

    With churn each of N steps first adds noise that raises r to r̂ = (1 + γ)·r, γ = min(churn/N, √2 − 1), and then
    goes from there to s, so that errors of earlier steps are forgotten.  [Karras et al. 2022, Alg. 2]  r̂ stays
    within the process: at t = T nothing is added. The raised level lies between those of a table, so a discrete
    process is refused.

    Args:
        churn: S_churn, how often the noise is renewed along the grid; 0 adds none.
        churn_min: S_tmin, the smallest r at which noise is added.
        churn_max: S_tmax, the largest r at which noise is added.
        churn_noise: S_noise, the standard deviation of that noise; 1 stays on the marginals of the process.
        largest_ratio: The largest r = σ/α at whose steps the slopes are averaged, above 0; infinity for every step but those to
            and from t = 0. It has no meaning where r is infinite at t = T.
    """

    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0
    largest_ratio: float = _LARGEST
    guidance = "eps"

    def __post_init__(self) -> None:
        number("churn, the amount of added noise,", self.churn, at_least=0, at_most=LARGEST)
        number("churn_min", self.churn_min, at_least=0)
        if not isinstance(self.churn_max, float) or self.churn_max != math.inf:  # the default: at any r
            number("churn_max", self.churn_max, at_least=0, at_most=LARGEST)
        if not self.churn_min <= self.churn_max:
            raise InputError(
                f"churn needs 0 ≤ churn_min ≤ churn_max, values of σ/α; got {self.churn_min!r} and {self.churn_max!r}"
            )
        number("churn_noise, a standard deviation,", self.churn_noise, above=0, at_most=LARGEST)
        if not isinstance(self.largest_ratio, float) or self.largest_ratio != math.inf:
            number("largest_ratio, a value of σ/α,", self.largest_ratio, above=0, at_most=LARGEST)

    def __repr__(self) -> str:
        shown = [] if self.largest_ratio == _LARGEST else [f"largest_ratio={self.largest_ratio}"]
        if self.churn > 0:
            within = f"churn_min={self.churn_min}, churn_max={self.churn_max}, churn_noise={self.churn_noise}"
            shown = [f"churn={self.churn}", within, *shown]
        return f"Heun({', '.join(shown)})"

    @property
    def between_levels(self) -> bool:
        """Whether the model is asked about times between the levels of a table."""
        return self.churn > 0

    def calls(self, grid: Grid) -> int:
        """At most two network calls a step, one on a step to or from 0: 2S − 1 for S steps to 0. Steps above
        `largest_ratio` may make one call as well, but only the process knows them.

        Args:
            grid: Times that strictly descend (sampling) or, without churn, strictly ascend (encoding).

        Raises:
            InputError: For a grid that turns or stands still, or ascends with churn.
        """
        if grid_direction(self, grid) == "up" and self.churn > 0:
            raise InputError(
                f"encoding integrates the deterministic ODE upwards, so it needs churn = 0; got {self.churn}"
            )
        return 2 * (len(grid) - 1) - sum(t == 0 for t in (as_floats(grid)[0], as_floats(grid)[-1]))

    def calls_on(self, process: Process | None, grid: Grid) -> int:
        most = self.calls(grid)
        if not isinstance(process, GaussianProcess):
            return most
        times, count = as_floats(grid), 0
        gamma = min(self.churn / (len(times) - 1), _LARGEST_RAISE)
        for t, s in pairwise(times):
            r_t, r_s = process.level(t).ratio, process.level(s).ratio
            r_t = self._r_hat(process, r_t, gamma) if t > 0 else r_t
            count += 1 + self._is_corrected(process, t, s, r_t, r_s)
        return count

    def init(self, model: Denoise, x: Tensor) -> float | None:
        return None

    def plan(self, model: Denoise, times: Sequence[float], state: float | None) -> float | None:
        """γ, by which the steps of this grid raise r; None without churn.

        Args:
            model: Not used.
            times: The grid, as Python numbers; its number of steps divides the churn.
            state: Not used.
        """
        return min(self.churn / (len(times) - 1), _LARGEST_RAISE) if self.churn > 0 else None

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: float | None, noise: Noise
    ) -> tuple[Tensor, Tensor, float | None]:
        if self.churn > 0:
            x_t, t = self._raised(model.process, x_t, t, state, noise)
        x0, eps = predict_x0_eps(model, x_t, t, s)
        here, lo = model.process.level(t), model.process.level(s)
        x_s = expand(lo.alpha, x_t) * x0 + expand(lo.sigma, x_t) * eps
        r_t, r_s = here.ratio, lo.ratio
        if not self._is_corrected(model.process, t, s, r_t, r_s):
            return x_s, x0, state
        there = model(x_s, s).guided(s)
        if model.process.ends_in_noise:
            signal, noisy = (lo.alpha - here.alpha) / 2, (lo.sigma - here.sigma) / 2
            x_s = x_s + expand(signal, x_t) * (there.x0 - x0) + expand(noisy, x_t) * (there.eps - eps)
            return x_s, x0, state
        # Euler's step is kept in its x̂0 form and corrected, because x/α cancels where α is small.
        half = lo.alpha * (r_s - r_t) / 2
        return x_s + expand(half, x_t) * (there.eps - eps), x0, state

    def _raised(
        self, process: GaussianProcess, x_t: Tensor, t: float, gamma: float | None, noise: Noise
    ) -> tuple[Tensor, float]:
        """x_t with noise added that takes it from r to r̂ = (1 + γ)·r, and the time of r̂."""
        if gamma is None or not isinstance(process, GaussianProcess) or process.is_discrete:
            raise InputError(
                "the churn of a step depends on the grid: use sf.trajectory, or start from plan(model, times, state)"
            )
        r = process.level(t).ratio
        raised = self._r_hat(process, r, gamma)
        if raised <= r:
            return x_t, t
        t_hat = min(float(process.time(-raised.log())), process.T)
        hat, now = process.level(t_hat), process.level(t)
        added = ((raised - r) * (raised + r)).sqrt() * self.churn_noise
        return expand(hat.alpha / now.alpha, x_t) * x_t + expand(hat.alpha * added, x_t) * noise.normal_like(
            x_t
        ), t_hat

    def _r_hat(self, process: GaussianProcess, r: Tensor, gamma: float) -> Tensor:
        """r̂, which is r where no noise is added."""
        raised = min((1 + gamma) * r, process.level(process.T).ratio)
        return raised if raised > r and self.churn_min <= r <= self.churn_max else r

    def _is_corrected(self, process: GaussianProcess, t: float, s: float, r_t: Tensor, r_s: Tensor) -> bool:
        """Whether a step asks the model a second time."""
        largest = self.largest_ratio * _ROUNDING
        return t > 0 and s > 0 and (process.ends_in_noise or float(max(r_t, r_s)) <= largest)
