"""An adaptive solver of the probability-flow equation: dopri5, which chooses its own times within each step of a grid."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.prediction import Level
from scorefield.core.shapes import expand
from scorefield.models.base import Denoise
from scorefield.runtime.checks import number
from scorefield.runtime.errors import InputError
from scorefield.samplers.base import Grid, Sampler
from scorefield.samplers.grids import as_floats

__all__ = ["Adaptive"]

_MOST_STEPS = 500  # of dopri5 within one step of the grid
_CALLS, _FIRST = 6, 2  # of a step of dopri5; before the first one, which choose its length


@dataclass(frozen=True)
class Adaptive(Sampler[None]):
    """dopri5 of torchdiffeq between every two times of the grid: fifth order, with steps as long as the tolerances allow.
    [Song et al. 2021, §4.3]

    In the angle θ = arctan(σ/α) and z = x/√(α² + σ²) the probability-flow equation is dz/dθ = v̂, which divides by no α
    and has finite ends. The grid sets only where x is reported: [T, t_min, 0] is enough. The step to 0 takes x̂0. The
    batch shares its steps, which keep the tolerances of every example, so a sample depends on its batch, but only to
    within them. Times lie between the levels of a table, so a discrete process is refused.

    Args:
        rtol: Relative tolerance, positive.
        atol: Absolute tolerance, positive, of z, whose values are of the order of the data's.
    """

    rtol: float = 1e-4
    atol: float = 1e-4
    guidance = "eps"
    between_levels = True

    def __post_init__(self) -> None:
        number("rtol, the relative tolerance,", self.rtol, above=0)
        number("atol, the absolute tolerance,", self.atol, above=0)

    def calls(self, grid: Grid) -> int:
        """At most: 500 steps of six network calls within each step of the grid, and two more; one on the step to 0. How
        many it makes, usually some dozens in all, depends on the model and the tolerances.

        Args:
            grid: Times that strictly descend.

        Raises:
            InputError: Unless the grid strictly descends.
        """
        steps, to_zero = super().calls(grid), int(as_floats(grid)[-1] == 0)
        return (steps - to_zero) * (_CALLS * _MOST_STEPS + _FIRST) + to_zero

    def init(self, model: Denoise, x: Tensor) -> None:
        return None

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: None, noise: Noise
    ) -> tuple[Tensor, Tensor, None]:
        if s == 0:
            x0 = model(x_t, t).guided(t).x0
            return x0, x0, None
        hi, lo = model.process.level(t), model.process.level(s)
        start, previews = _angle(hi), list[Tensor]()

        def slope(passed: Tensor, z: Tensor) -> Tensor:
            if not bool(passed.isfinite()):  # where the slope was not, no step has a length
                raise ArithmeticError("the slope is not finite")
            theta = start - passed.detach().cpu().double()
            time = float(model.process.time(-theta.tan().log()).clamp(s, t)) if len(previews) else t
            level = model.process.level(time)
            pred = model(z * expand(_norm(level), z), time).guided(time)
            if not previews:
                previews.append(pred.x0)
            return -pred.velocity

        precise = torch.float32 if x_t.device.type == "mps" else torch.float64
        passed = torch.stack([torch.zeros_like(start), start - _angle(lo)]).to(x_t.device, precise)
        options = {"norm": _worst_example, "step_t": passed[1:], "max_num_steps": _MOST_STEPS}
        try:
            z = import_module("torchdiffeq").odeint(
                slope,
                x_t / expand(_norm(hi), x_t),
                passed,
                rtol=self.rtol,
                atol=self.atol,
                method="dopri5",
                options=options,
            )
        except (AssertionError, ArithmeticError) as fault:
            raise InputError(
                f"{self} cannot go from t = {t:g} to {s:g} ({fault}): raise its tolerances, give the grid more steps, or check "
                "that the model's output is finite"
            ) from None
        return z[-1] * expand(_norm(lo), x_t), previews[0], None


def _angle(level: Level) -> Tensor:
    return torch.atan2(level.sigma, level.alpha)


def _norm(level: Level) -> Tensor:
    return (level.alpha**2 + level.sigma**2).sqrt()


def _worst_example(z: Tensor) -> Tensor:
    """The largest root mean square over the examples: a mean over the batch would hide a hard one among many."""
    return z.square().flatten(1).mean(dim=1).max().sqrt()
