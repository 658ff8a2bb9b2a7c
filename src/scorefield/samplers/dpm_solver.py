"""DPM-Solver++: the probability-flow equation in terms of x̂0, integrated exactly but for x̂0 itself.  [Lu et
al. 2022b]

With λ = ln(α/σ) and h = λ_s − λ_t a step is x_s = (σ_s/σ_t) x_t + α_s ∫ e^{λ−λ_s} x̂0 dλ from λ_t to λ_s.
Constant x̂0 gives α_s x̂0 + σ_s ε̂, the step of DDIM; the solvers here add the bend of x̂0 along λ to it.
Written so, a step holds at σ_s = 0 and at any σ_t/α_t. A classifier's gradient shifts ε̂.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.prediction import Level
from scorefield.core.shapes import expand
from scorefield.models.base import Denoise
from scorefield.process.base import GaussianProcess, Process
from scorefield.runtime.checks import flag
from scorefield.runtime.errors import IncompatibleModel
from scorefield.samplers.base import Grid, Sampler
from scorefield.samplers.exponential import Node, bend, remember
from scorefield.samplers.grids import as_floats

__all__ = ["Before", "DPMSolver2M", "DPMSolver2S", "DPMSolver3M"]


class Before(NamedTuple):
    """What a step leaves for the next one: its x̂0 (B, *), and its length h in λ."""

    x0: Tensor
    h: Tensor


@dataclass(frozen=True)
class DPMSolver2M(Sampler[Before | None]):
    """DPM-Solver++(2M): x̂0 extrapolated from the step before, second order for one call a step.  [Lu et al.
    2022b, Alg. 2]

    x_s = (σ_s/σ_t) x_t − α_s(e^{−h} − 1) D,  D = x̂0 + h/(2h')·(x̂0 − x̂0')  with ' of the step before. The
    first step and the steps where h is infinite, to 0 and from α = 0, have D = x̂0: they are first order.

    Args:
        stochastic: SDE-DPM-Solver++(2M), x_s = (σ_s/σ_t)e^{−h} x_t + α_s(1 − e^{−2h}) D + σ_s√(1 − e^{−2h})
            z, which is ancestral sampling with the "lower" variance where D = x̂0; no noise on the step to 0.
    """

    stochastic: bool = False
    guidance = "eps"

    def __post_init__(self) -> None:
        flag("stochastic", self.stochastic)

    def init(self, model: Denoise, x: Tensor) -> Before | None:
        return None

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: Before | None, noise: Noise
    ) -> tuple[Tensor, Tensor, Before | None]:
        hi, lo = model.process.level(t), model.process.level(s)
        pred = model(x_t, t).guided(t)
        if s == 0:
            return pred.x0, pred.x0, None
        shrink = lo.ratio / hi.ratio  # e^{−h}
        h, kept = -shrink.log(), shrink if self.stochastic else torch.ones_like(shrink)
        x_s = expand(lo.alpha, x_t) * pred.x0 + expand(kept * lo.sigma, x_t) * pred.eps
        if state is not None:
            bend = lo.alpha * (1 - kept * shrink) * h / (2 * state.h)
            x_s = x_s + expand(bend, x_t) * (pred.x0 - state.x0)
        if self.stochastic:
            x_s = x_s + expand(lo.sigma * ((1 - kept) * (1 + kept)).sqrt(), x_t) * noise.normal_like(x_t)
        return x_s, pred.x0, Before(pred.x0, h)


@dataclass(frozen=True)
class DPMSolver2S(Sampler[None]):
    """DPM-Solver++(2S): x̂0 of a first-order step to the middle of λ, second order for two calls a step.  [Lu
    et al. 2022b, Alg. 1]

    x_s = (σ_s/σ_t) x_t − α_s(e^{−h} − 1)·x̂0(x_m, m) with λ_m = (λ_t + λ_s)/2 (r = ½). No step knows of
    another one. The steps to 0 and from α = 0, where h is infinite, are first order. The middle lies between
    the levels of a table, so a discrete process is refused.
    """

    guidance = "eps"
    between_levels = True

    def calls(self, grid: Grid) -> int:
        """Two network calls a step, one on the step to 0. A step from α = 0 makes one call as well, but only
        the process knows it.

        Args:
            grid: Times that strictly descend.

        Raises:
            InputError: Unless the grid strictly descends.
        """
        return 2 * super().calls(grid) - int(as_floats(grid)[-1] == 0)

    def calls_on(self, process: Process | None, grid: Grid) -> int:
        first, second = as_floats(grid)[:2]
        one = isinstance(process, GaussianProcess) and second > 0 and bool(process.level(first).alpha == 0)
        return self.calls(grid) - int(one)

    def init(self, model: Denoise, x: Tensor) -> None:
        return None

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: None, noise: Noise
    ) -> tuple[Tensor, Tensor, None]:
        hi, lo = model.process.level(t), model.process.level(s)
        pred = model(x_t, t).guided(t)
        if s == 0:
            return pred.x0, pred.x0, None
        if hi.alpha == 0:
            return _first_order(pred.x0, pred.eps, lo), pred.x0, None
        m = _middle(model.process, hi, lo)
        x_m = _first_order(pred.x0, pred.eps, model.process.level(m))
        bend = model(x_m, m).guided(m).x0 - pred.x0
        x_s = _first_order(pred.x0, pred.eps, lo)
        return x_s + expand(lo.alpha * (1 - lo.ratio / hi.ratio), x_t) * bend, pred.x0, None


@dataclass(frozen=True)
class DPMSolver3M(Sampler[tuple[Node, ...]]):
    """DPM-Solver++(3M): the parabola in λ through x̂0 and those of the two steps before, third order for one call a step.
    [Lu et al. 2022b, Eq. 8–9]

    x_s = (σ_s/σ_t) x_t + α_s ∫_0^h e^{u−h} P(u) du, P the parabola. It is the exponential Adams–Bashforth method of that
    order, and UniP-3. (diffusers' scheduler of this name gives the second difference half of this weight, which leaves
    second order.) The first step and the step to 0 are first order, the second step is that of 2M.
    """

    guidance = "eps"

    def init(self, model: Denoise, x: Tensor) -> tuple[Node, ...]:
        return ()

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: tuple[Node, ...], noise: Noise
    ) -> tuple[Tensor, Tensor, tuple[Node, ...]]:
        hi, lo = model.process.level(t), model.process.level(s)
        pred = model(x_t, t).guided(t)
        if s == 0:
            return pred.x0, pred.x0, ()
        x_s = _first_order(pred.x0, pred.eps, lo)
        here = Node(-hi.ratio.log(), pred.x0)
        if state:
            x_s = x_s + expand(lo.alpha, x_t) * bend(here, state, (hi.ratio / lo.ratio).log())
        return x_s, pred.x0, remember(here, state, 2)


def _first_order(x0: Tensor, eps: Tensor, lo: Level) -> Tensor:
    return expand(lo.alpha, x0) * x0 + expand(lo.sigma, x0) * eps


def _middle(process: GaussianProcess, hi: Level, lo: Level) -> float:
    """The time half-way in λ."""
    if process.is_discrete:
        raise IncompatibleModel("a table of levels has none half-way: see sf.samplers.between_levels")
    return float(process.time(-(hi.ratio * lo.ratio).log() / 2))
