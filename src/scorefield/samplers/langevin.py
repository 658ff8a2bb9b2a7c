"""Langevin dynamics: plain, annealed, Metropolis-adjusted, and as the corrector after another sampler's step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.prediction import Level
from scorefield.core.shapes import expand, sum_flat
from scorefield.models.base import Denoise, GaussianModel, LogDensity, ScoreFunction
from scorefield.models.foreign import as_gaussian, as_model
from scorefield.process.base import Process
from scorefield.runtime.checks import brief, flag, instance_of, number, positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.base import Grid, Placing, Sampler, as_sampler
from scorefield.samplers.grids import as_floats

__all__ = ["PredictorCorrector", "Langevin"]

_MOST_REPEATS = 10**6

# The score and the log-density at the present state, so that a Metropolis step evaluates only its proposal.
Kept = tuple[Tensor, Tensor]


@dataclass(frozen=True, init=False)
class Langevin(Sampler[Kept | None, ScoreFunction]):
    """x ← x + (h/2)·∇log p(x) + √h z: samples p as h → 0, with an error of order h.  [NCSN §2.2, Algorithm 1]

    At noise levels a pair (t, s) is one update at level t, always with noise, in y = x/α, whose noise is r =
    σ/α: h = step·(r_t/r_1)², r_1 that of the first level (t = 1, or t_min where t is real), then x_s = α_s y.
    Annealed Langevin dynamics is this on `grids.staircase(process, repeats)`. On a score without levels h =
    step, and `grids.steps(n)` makes n updates. It is stable for h below 4 times the smallest variance of p_t
    along any direction.

    At α_t = 0 there is no x/α, and x_t already has the law of its level, noise: the step is x_s = α_s x̂0 + σ_s ε̂
    without a draw.

    Guidance adds to the score: at level t the updates then sample p_t(x)·p_t(y|x)^s, for any scale s.

    Args:
        step: h at the first level, in squared units of the data, above 0. NCSN's code has h = 2·step_lr, so
            its 2e-5 is step=4e-5.
        metropolis: Accept or refuse every update so that p itself is sampled at any h (MALA); needs an
            energy or a density.
        final_denoise: On the step to t = 0 return x̂0 at the updated x, for one more network call.

    Attributes:
        step_size: `step`, whose name is that of the method here.
    """

    guidance = "eps"

    step_size: float  # not `step`, which is what a sampler does
    metropolis: bool
    final_denoise: bool

    def __init__(self, step: float, metropolis: bool = False, final_denoise: bool = False) -> None:
        step = number("the step of Langevin dynamics", step, above=0)
        flag("metropolis", metropolis)
        flag("final_denoise", final_denoise)
        if metropolis and final_denoise:
            raise InputError(
                "metropolis=True is for densities without noise levels and final_denoise=True for models with them: choose one"
            )
        for name, value in (
            ("step_size", step),
            ("metropolis", metropolis),
            ("final_denoise", final_denoise),
        ):
            object.__setattr__(self, name, value)

    def calls(self, grid: Grid) -> int:
        """Evaluations of the score: one an update, and one more to start a Metropolis chain or to denoise at
        the end.

        Args:
            grid: Times that never ascend; a time may be repeated.

        Raises:
            InputError: For a grid that ascends, and for an update at t = 0.
        """
        if any(t <= 0 or s > t for t, s in pairwise(as_floats(grid))):
            raise InputError(
                "Langevin updates at t > 0 with t not increasing: its grid may repeat a time but not ascend, got "
                f"{brief(as_floats(grid))}"
            )
        return len(grid) - 1 + int(self.metropolis or (self.final_denoise and as_floats(grid)[-1] == 0))

    def check_model(self, model: ScoreFunction) -> None:
        """Refuse a model that has no score, or lacks what the options need.

        Args:
            model: The model, of the library or of one's own.

        Raises:
            IncompatibleModel: For a model of categories; with `metropolis` without an energy or a density;
                with `final_denoise` without noise levels.
        """
        asked = as_model(model)
        if asked.family == "categorical":
            as_gaussian(model, "Langevin", categorical="CategoricalAncestral or CategoricalDDIM")
        if self.metropolis:
            _log_density(model)
        if self.final_denoise and asked.process is None:
            raise IncompatibleModel(
                f"final_denoise=True needs a model with noise levels, and {asked.kind} has only a score: remove it"
            )

    def init(self, model: ScoreFunction, x: Tensor) -> Kept | None:
        return None

    def step(
        self, model: ScoreFunction, x_t: Tensor, t: float, s: float, state: Kept | None, noise: Noise
    ) -> tuple[Tensor, Tensor, Kept | None]:
        """x ← x + (h/2)·∇log p(x) + √h z: one update.

        Args:
            model: The model, whose score it takes.
            x_t: x at time t, (B, *).
            t: The time of the update's level; without levels how many updates are left.
            s: The time of the next level, s ≤ t.
            state: What a Metropolis chain keeps of its last x; otherwise None.
            noise: Where the draws come from.

        Returns:
            x_s (B, *), x̂0 (B, *), or x_s again where there are no levels, and the next state.
        """
        asked = as_model(model)
        if isinstance(asked, GaussianModel):
            return *self._at_level(asked, x_t, t, s, noise), None
        if self.metropolis:
            return self._adjusted(model, x_t, state, noise)
        x = _proposal(x_t, model.score(x_t), self.step_size, noise.normal_like(x_t))
        return x, x, None

    def _at_level(
        self, model: Denoise, x_t: Tensor, t: float, s: float, noise: Noise
    ) -> tuple[Tensor, Tensor]:
        """(x_s, x̂0): y ← y − h/(2r)·ε̂ + √h z for y = x/α, whose score is α·∇log p_t(x) = −ε̂/r."""
        process = model.process
        hi, lo, first = process.level(t), process.level(s), process.level(process.t_min)
        r, r_1 = hi.ratio, first.ratio
        h = self.step_size * (r / r_1) ** 2
        pred = model(x_t, t).guided(t)
        z = noise.normal_like(x_t) if hi.alpha > 0 else None

        def updated(to: Level) -> Tensor:
            alpha, sigma = to
            if z is None:
                return expand(alpha, x_t) * pred.x0 + expand(sigma, x_t) * pred.eps
            drift, std = alpha * h / (2 * r), alpha * h.sqrt()
            return expand(alpha / hi.alpha, x_t) * x_t - expand(drift, x_t) * pred.eps + expand(std, x_t) * z

        if s == 0 and self.final_denoise:
            x0 = model(updated(hi), t).guided(t).x0
            return x0, x0
        return updated(lo), pred.x0

    def _adjusted(
        self, model: ScoreFunction, x: Tensor, state: Kept | None, noise: Noise
    ) -> tuple[Tensor, Tensor, Kept]:
        """Accept x' ~ q(·|x) with probability min(1, p(x')q(x|x') / p(x)q(x'|x)), q the update's own
        Gaussian.  [Roberts & Tweedie 1996, MALA]

        A proposal where p or its score is not finite is refused.
        """
        log_density, h = _log_density(model), self.step_size
        score, log_p = state or (model.score(x), log_density(x))
        x_new = _proposal(x, score, h, noise.normal_like(x))
        score_new, log_p_new = model.score(x_new), log_density(x_new)
        forth = sum_flat((x_new - x - h / 2 * score) ** 2)
        back = sum_flat((x - x_new - h / 2 * score_new) ** 2)
        log_ratio = log_p_new - log_p + (forth - back) / (2 * h)
        accept = noise.uniform((x.shape[0], 1))[:, 0].to(log_ratio).log() < log_ratio
        row = accept.reshape(-1, *[1] * (x.ndim - 1))
        x = torch.where(row, x_new, x)
        return x, x, (torch.where(row, score_new, score), torch.where(accept, log_p_new, log_p))


@dataclass(frozen=True)
class PredictorCorrector(Sampler[Any]):
    """After every step of `predictor` to s > 0, `repeats` Langevin updates at level s.  [Song et al. 2021,
    predictor-corrector]

    A step's x̂0 is the predictor's. On the step to 0 the predictor has the last word. Both are guided, so
    that a gradient must be taken at x_t, where both can.

    Args:
        predictor: The sampler that goes from t to s.
        langevin: The corrector, without `final_denoise`.
        repeats: Updates of the corrector after each step, at least 1.
    """

    predictor: Sampler[Any]
    langevin: Langevin
    repeats: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "predictor", as_sampler(self.predictor))
        positive_int("repeats", self.repeats, at_most=_MOST_REPEATS)
        instance_of("langevin, the corrector,", self.langevin, Langevin, "a Langevin(step)")
        if self.langevin.final_denoise:
            raise InputError(
                "a corrector makes no step to 0, so there is no final denoising: remove final_denoise"
            )

    @property
    def guidance(self) -> Placing | None:
        """How the predictor and the corrector together place a gradient; None where the predictor does not
        say.
        """
        return None if self.predictor.guidance is None else "eps"

    @property
    def between_levels(self) -> bool:
        return self.predictor.between_levels

    def check_model(self, model: Denoise) -> None:
        super().check_model(model)
        self.langevin.check_model(model)
        self.predictor.check_model(model)

    def calls(self, grid: Grid) -> int:
        """The predictor's calls and `repeats` for every s > 0.

        Args:
            grid: Times that never ascend.

        Raises:
            InputError: For a grid that ascends, or that the predictor cannot walk.
        """
        self.langevin.calls(grid)
        return self.predictor.calls(grid) + self._corrections(grid)

    def calls_on(self, process: Process | None, grid: Grid) -> int:
        self.calls(grid)
        return self.predictor.calls_on(process, grid) + self._corrections(grid)

    def _corrections(self, grid: Grid) -> int:
        return self.repeats * sum(s > 0 for s in as_floats(grid)[1:])

    def init(self, model: Denoise, x: Tensor) -> Any:
        return self.predictor.init(model, x)

    def plan(self, model: Denoise, times: Sequence[float], state: Any) -> Any:
        return self.predictor.plan(model, times, state)

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: Any, noise: Noise
    ) -> tuple[Tensor, Tensor, Any]:
        x, x0, state = self.predictor.step(model, x_t, t, s, state, noise)
        for _ in range(self.repeats if s > 0 else 0):
            x, _, _ = self.langevin.step(model, x, s, s, None, noise)
        return x, x0, state


def _proposal(x: Tensor, score: Tensor, h: float, z: Tensor) -> Tensor:
    """x + (h/2)·score + √h z."""
    return x + h / 2 * score + math.sqrt(h) * z


def _log_density(model: object) -> LogDensity:
    """x (B, *) -> ln p(x) + constant, (B,). IncompatibleModel for a model that knows only its score, or has
    levels.
    """
    density = as_model(model).log_density
    if density is not None:
        return density
    raise IncompatibleModel(
        "metropolis=True needs the density itself, from ScoreModel(net, energy=True) or a model with "
        f"log_prob(x), and {type(model).__name__} gives no density without noise levels: remove it"
    )
