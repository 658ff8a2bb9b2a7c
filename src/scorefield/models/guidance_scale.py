"""The scale of guidance: a number or a function of t, within an interval of noise levels.

Also `check_levels`, for guidance by a second model, whose noise levels must be the model's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from scorefield.core.shapes import shown
from scorefield.models.wrappers import per_example
from scorefield.process.base import GaussianProcess, Time
from scorefield.runtime.checks import LARGEST, brief, is_list, number, numbers, one_of
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = ["GuidanceScale", "Interval", "Scale", "Schedule", "check_levels", "scheduled"]

Scale = float | Sequence[float] | Tensor | Callable[[Time], float | Sequence[float] | Tensor]
Interval = tuple[float, float]
Schedule = Literal["linear", "cosine"]

# Two tables of levels may have been rounded on their ways, as those of published weights are; other schedules
# differ far more.
_SAME_LEVEL = 1e-3


class GuidanceScale:
    """The guidance scale at a time: a number, one for each example, or a function of t, within an interval of σ/α.

    Args:
        scale: s: a number, (B,), or a function of t that returns either.
        interval: (low, high): there is guidance where low < σ/α ≤ high.  [Kynkäänniemi et al. 2024] Default: everywhere.
    """

    def __init__(self, scale: Scale, interval: Interval | None = None) -> None:
        self.scale = scale if callable(scale) else _checked(scale)
        self.interval = None if interval is None else _as_interval(interval)

    def shown(self) -> list[str]:
        """What a repr shows of it, such as "scale=2"."""
        scale = self.scale if isinstance(self.scale, Tensor) else None
        said = [f"scale={brief(self.scale) if scale is None else shown(scale)}"]
        return said if self.interval is None else [*said, f"interval={self.interval}"]

    def at(self, x: Tensor, t: Time, process: GaussianProcess, unguided: float) -> Tensor | None:
        """The scale of every example of x at t, (B,) float64 on the CPU.

        Args:
            x: (B, *).
            t: The time of x, a number or (B,).
            process: Whose levels the interval is of.
            unguided: The scale outside of the interval.

        Returns:
            None where no example is in the interval, so that there is nothing to compute.
        """
        inside = None
        if self.interval is not None:
            low, high = self.interval
            ratio = process.level(t).ratio
            inside = per_example((low < ratio) & (ratio <= high), x, "times")
            if not bool(inside.any()):
                return None
        scale = self.scale if isinstance(self.scale, Tensor) else _checked(self.scale(t))
        found = per_example(scale, x, "scales")
        return found if inside is None else torch.where(inside, found, unguided)


def scheduled(name: Schedule, scale: float, unguided: float, T: float) -> Callable[[Time], Tensor]:
    """A scale that is `unguided` at t = T and rises as t falls, with the mean `scale` over t.  [Wang et al. 2024]

    With Δ = scale − unguided, "linear" is unguided + 2(1 − t/T) Δ and "cosine" is unguided + (1 + cos(π t/T)) Δ.

    Args:
        name: "linear" or "cosine".
        scale: The mean over t.
        unguided: The scale without guidance: 1 of classifier-free guidance, 0 of a classifier.
        T: The last time.
    """
    one_of("the schedule of guidance", name, ("linear", "cosine"))

    def at(t: Time) -> Tensor:
        u = torch.as_tensor(t, dtype=torch.float64).cpu() / T
        rise = 2 * (1 - u) if name == "linear" else 1 + torch.cos(math.pi * u)
        return unguided + rise * (scale - unguided)

    return at


def check_levels(mine: GaussianProcess, its: object, what: str) -> None:
    """Refuse a second model whose process has other levels.

    Args:
        mine: The model's process.
        its: The process of the second one; what is no Gaussian process is not checked.
        what: What the second one is, such as "classifier".

    Raises:
        IncompatibleModel: Where the levels differ by more than rounding.
    """
    if not isinstance(its, GaussianProcess) or its is mine:
        return
    same = f"train {'an' if what[0] in 'aeiou' else 'a'} {what} on the model's own process"
    if float(its.T) != float(mine.T):
        raise IncompatibleModel(f"the {what} has T = {its.T}, but the model has T = {mine.T}: {same}")
    discrete = mine.is_discrete or its.is_discrete
    times = (
        torch.arange(1, int(mine.T) + 1)
        if discrete
        else torch.linspace(0, mine.T, 101, dtype=torch.float64)[1:]
    )
    (alpha, sigma), (its_alpha, its_sigma) = mine.level(times), its.level(times)
    wrong = ((its_alpha / alpha - 1).abs() > _SAME_LEVEL) | ((its_sigma / sigma - 1).abs() > _SAME_LEVEL)
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0])
        its_ratio, ratio = (float(s[k] / a[k]) for a, s in ((its_alpha, its_sigma), (alpha, sigma)))
        raise IncompatibleModel(
            f"the {what} has other noise levels: at t = {times[k]:g} its σ/α is "
            f"{its_ratio:.4g} (α {its_alpha[k]:.4g}), and the model's {ratio:.4g} (α {alpha[k]:.4g}): {same}"
        )


def _as_interval(interval: object) -> Interval:
    if not is_list(interval) or len(interval) != 2:
        raise InputError(
            f"interval is (low, high), the σ/α between which there is guidance; got {brief(interval)}"
        )
    low, high = interval
    low = number("low of the interval of guidance, a σ/α,", low, at_least=0)
    if high != math.inf:
        high = number("high of the interval of guidance, a σ/α,", high, above=0)
    if not low < high:
        raise InputError(f"the interval of guidance needs low < high, got ({low:g}, {high:g})")
    return low, high


def _checked(scale: object) -> Tensor:
    """() or (B,) float64 on the CPU."""
    values = numbers("scale", scale)
    if values.ndim > 1 or not values.numel() or bool((values.abs() > LARGEST).any()):
        raise InputError(
            f"scale is a finite number up to {LARGEST:g}, or one for each example; got {brief(scale)}"
        )
    return values
