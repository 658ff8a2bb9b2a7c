"""DDIM: one family from deterministic (η = 0) to ancestral (η = 1).  [DDIM Eq. 12, 16]"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.prediction import Level
from scorefield.core.shapes import expand
from scorefield.models.base import Denoise
from scorefield.models.foreign import as_model
from scorefield.process.transitions import transition
from scorefield.runtime.checks import LARGEST, brief, number, numbers
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.base import Grid, Sampler
from scorefield.samplers.grids import as_floats

__all__ = ["DDIM", "grid_direction", "predict_x0_eps"]


@dataclass(frozen=True)
class DDIM(Sampler[int]):
    """x_s = α_s x̂0 + √(σ_s² − ς²) ε̂ + ς z, of variance ς², by default ς = η·(σ_s/σ_t)·σ_{t|s}.  [DDIM Eq. 12, 16]

    A classifier's gradient shifts ε̂.  [ADM Algorithm 2]

    Args:
        eta: η scales the standard deviation, in [0, 1]; 1 is ancestral sampling with the "lower" variance, 0
            is deterministic and walks upwards too (encoding).
        varsigma: ς itself in the place of η, any 0 ≤ ς ≤ σ_s: whatever it is, x_s has the right distribution
            given x_0 [DDIM Lemma 1]. One number a step, the last one 0 on a grid that ends in t = 0; or a
            function (t, s) -> ς, which is not asked about s = 0, where no noise is added.
        clip_x0: Bounds (low, high) of x̂0 in the step, whose ε̂ stays that of the unclipped prediction, in both directions:
            diffusers' DDIMScheduler and DDIMInverseScheduler with their default settings. `ClipX0`, around the model, lets ε̂
            follow the clipped x̂0 instead, as ADM's code does. Clipped steps cannot be walked back exactly.

    Raises:
        InputError: Before the first step where ς² > σ_s², and where the numbers are not one a step.
    """

    eta: float = 0.0
    varsigma: Callable[[float, float], float] | Sequence[float] | None = None
    clip_x0: tuple[float, float] | None = None
    guidance = "eps"

    def __post_init__(self) -> None:
        number("η, which scales the standard deviation of the noise,", self.eta, at_least=0, at_most=1)
        if self.varsigma is not None and self.eta != 0:
            raise InputError("η and varsigma both set the noise of a step: give one of them")
        if isinstance(self.varsigma, type):
            raise InputError(
                f"varsigma is a function (t, s) -> ς or one number a step, got {brief(self.varsigma)}"
            )
        if self.varsigma is not None and not callable(self.varsigma):
            object.__setattr__(self, "varsigma", tuple(numbers("varsigma", self.varsigma, 1).tolist()))
        if self.clip_x0 is not None:
            bounds = tuple(numbers("clip_x0", self.clip_x0, 1).tolist())
            if len(bounds) != 2 or not -LARGEST <= bounds[0] < bounds[1] <= LARGEST:
                raise InputError(f"clip_x0 is (low, high) with low < high, got {brief(self.clip_x0)}")
            object.__setattr__(self, "clip_x0", bounds)

    def __repr__(self) -> str:
        noise = f"eta={self.eta}" if self.varsigma is None else f"varsigma={self.varsigma}"
        return f"DDIM({noise})" if self.clip_x0 is None else f"DDIM({noise}, clip_x0={self.clip_x0})"

    def check_model(self, model: Denoise) -> None:
        super().check_model(model)
        if self.clip_x0 is not None and as_model(model).clips:
            raise IncompatibleModel(
                "clip_x0 leaves ε̂ unclipped, and this model clips x̂0 already, which ε̂ then follows: give the model without "
                "ClipX0 (clip=False in the options of sampling)"
            )

    def calls(self, grid: Grid) -> int:
        """One network call a step.

        Args:
            grid: Times that strictly descend; with η = 0 also times that strictly ascend (encoding).

        Raises:
            InputError: For a grid that turns, that ascends with noise, or that has other steps than ς.
        """
        if grid_direction(self, grid) == "up" and (self.eta > 0 or self.varsigma is not None):
            with_noise = f"η = {self.eta}" if self.varsigma is None else "varsigma"
            raise InputError(
                f"encoding integrates the deterministic ODE upwards, so it needs η = 0; got {with_noise}"
            )
        steps = len(grid) - 1
        if isinstance(self.varsigma, tuple) and len(self.varsigma) != steps:
            raise InputError(
                f"varsigma has one number for each of the {steps} steps of this grid; got {len(self.varsigma)}"
            )
        return steps

    def init(self, model: Denoise, x: Tensor) -> int:
        """The number of steps taken, which finds the ς of a list of them.

        Args:
            model: Not used.
            x: Not used.
        """
        return 0

    def plan(self, model: Denoise, times: Sequence[float], state: int) -> int:
        """The state as it is, once every ς of this grid is known to fit.

        Args:
            model: The model, whose process has the σ_s.
            times: The grid, as Python numbers.
            state: What `init` gave.

        Raises:
            InputError: Where a ς is too large for its step.
        """
        if self.varsigma is not None:
            for i, (t, s) in enumerate(pairwise(times)):
                self._chosen(model.process.level(s), t, s, i)
        return state

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: int | None, noise: Noise
    ) -> tuple[Tensor, Tensor, int]:
        hi, lo, i = model.process.level(t), model.process.level(s), state or 0
        x0, eps = predict_x0_eps(model, x_t, t, s)
        if self.clip_x0 is not None:
            x0 = x0.clamp(*self.clip_x0)
        varsigma, along = self._by_eta(hi, lo) if self.varsigma is None else self._by_schedule(lo, t, s, i)
        if s == 0 or varsigma == 0:
            return expand(lo.alpha, x_t) * x0 + expand(lo.sigma, x_t) * eps, x0, i + 1
        mean = expand(lo.alpha, x_t) * x0 + expand(along, x_t) * eps
        return mean + expand(varsigma, x_t) * noise.normal_like(x_t), x0, i + 1

    def _by_eta(self, hi: Level, lo: Level) -> tuple[Tensor, Tensor]:
        """(ς, √(σ_s² − ς²)) of η."""
        if self.eta == 0:
            return torch.zeros_like(lo.sigma), lo.sigma
        _, var_ts = transition(hi, lo)
        varsigma = self.eta * (lo.sigma / hi.sigma) * var_ts.sqrt()
        # σ_s √(1 − η² σ²_{t|s}/σ_t²), not √(σ_s² − ς²): the difference can round below 0.
        return varsigma, lo.sigma * (1 - self.eta**2 * var_ts / hi.sigma**2).clamp_min(0).sqrt()

    def _by_schedule(self, lo: Level, t: float, s: float, i: int) -> tuple[Tensor, Tensor]:
        """(ς, √(σ_s² − ς²)) of the i-th step."""
        varsigma = torch.as_tensor(self._chosen(lo, t, s, i), dtype=torch.float64)
        return varsigma, ((lo.sigma - varsigma) * (lo.sigma + varsigma)).sqrt()

    def _chosen(self, lo: Level, t: float, s: float, i: int) -> float:
        """ς of the i-th step. InputError unless 0 ≤ ς ≤ σ_s."""
        varsigma, sigma = 0.0, float(lo.sigma)
        if callable(self.varsigma):
            varsigma = number("ς of varsigma(t, s)", self.varsigma(t, s)) if s > 0 else 0.0
        elif self.varsigma is not None:
            varsigma = self.varsigma[i]
        if not 0 <= varsigma <= sigma:
            raise InputError(
                f"ς is the part of the noise at s that is drawn anew, so ς² ≤ σ_s² (0 at s = 0); step {i + 1}, from t = {t:g} to "
                f"s = {s:g}, has σ_s = {sigma:.6g} and got ς = {varsigma:.6g}"
            )
        return varsigma


def grid_direction(sampler: object, grid: Grid) -> Literal["down", "up"]:
    """Which way a grid walks.

    Args:
        sampler: Named in the error.
        grid: The times.

    Raises:
        InputError: Where it turns or stands still.
    """
    times = as_floats(grid)
    if len(times) < 2:
        raise InputError(f"a grid is at least two times, got {times}")
    down = [s < t for t, s in pairwise(times)]
    if any(s == t for t, s in pairwise(times)) or len(set(down)) > 1:
        raise InputError(
            f"{type(sampler).__name__} needs a grid that strictly descends (sampling) or strictly ascends (encoding), "
            f"got {brief(times)}"
        )
    return "down" if down[0] else "up"


def predict_x0_eps(model: Denoise, x_t: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
    """(x̂0, ε̂) at x_t, both (B, *), for a step from t to s."""
    if t == 0:
        # x_0 itself is known; ε̂ comes from the smallest positive time of the grid, which is s.
        return x_t, model(x_t, s).guided(s).eps
    pred = model(x_t, t).guided(t)
    return pred.x0, pred.eps
