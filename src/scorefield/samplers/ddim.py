"""DDIM: one family from deterministic (η = 0) to ancestral (η = 1).  [DDIM Eq. 12, 16]"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.core.kernels import transition
from scorefield.core.noise import Noise
from scorefield.core.shapes import expand
from scorefield.denoiser import Denoise
from scorefield.samplers.base import Grid, need_levels
from scorefield.samplers.grids import listed

__all__ = ["DDIM", "direction", "ends"]


@dataclass(frozen=True)
class DDIM:
    """x_s = α_s x̂0 + √(σ_s² − ς²) ε̂ + ς z with ς = η·(σ_s/σ_t)·σ_{t|s}.  [DDIM Eq. 12, 16]

    eta: scales the standard deviation, in [0, 1]; 1 is ancestral sampling with the "lower" variance, 0 is deterministic and
    walks upwards too (encoding). A classifier's gradient shifts ε̂.  [ADM Algorithm 2]
    """

    eta: float = 0.0
    guidance: ClassVar[str] = "eps"

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(f"η scales the standard deviation of the noise and lies in [0, 1], got {self.eta!r}")

    def calls(self, grid: Grid) -> int:
        """One network call a step. InputError for a grid that turns, or that ascends with η > 0."""
        if direction(self, grid) == "up" and self.eta > 0:
            raise InputError(f"encoding walks the deterministic ODE upwards, so it needs η = 0; got η = {self.eta}")
        return len(grid) - 1

    def init(self, model: Any, x: Tensor) -> None:
        need_levels(self, model)

    def step(self, model: Denoise, x_t: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, Tensor, None]:
        process = model.process
        hi, lo = process.level(t), process.level(s)
        x0, eps = ends(model, x_t, t, s)
        if self.eta == 0 or s == 0:
            return expand(lo.alpha, x_t) * x0 + expand(lo.sigma, x_t) * eps, x0, None
        _, var_ts = transition(hi, lo)
        varsigma = self.eta * (lo.sigma / hi.sigma) * var_ts.sqrt()
        # σ_s √(1 − η² σ²_{t|s}/σ_t²), not √(σ_s² − ς²): the difference can round below 0.
        direction = lo.sigma * (1 - self.eta**2 * var_ts / hi.sigma**2).clamp_min(0).sqrt()
        mean = expand(lo.alpha, x_t) * x0 + expand(direction, x_t) * eps
        return mean + expand(varsigma, x_t) * noise.normal_like(x_t), x0, None


def direction(sampler: object, grid: Grid) -> Literal["down", "up"]:
    """Which way a grid walks. InputError where it turns or stands still."""
    down = [s < t for t, s in pairwise(listed(grid))]
    if any(s == t for t, s in pairwise(listed(grid))) or len(set(down)) > 1:
        raise InputError(
            f"{type(sampler).__name__} needs a grid that strictly descends (sampling) or strictly ascends (encoding), "
            f"got {listed(grid)}"
        )
    return "down" if down[0] else "up"


def ends(model: Denoise, x_t: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
    """(x̂0, ε̂) at x_t, both (B, *), for a step from t to s."""
    if t == 0:
        # x_0 itself is known; ε̂ comes from the smallest positive time of the grid, which is s.
        return x_t, model(x_t, s).guided(s).eps
    pred = model(x_t, t).guided(t)
    return pred.x0, pred.eps
