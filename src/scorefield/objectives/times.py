"""Which t: the distribution of training times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from scorefield.core.noise import Noise, check_noise
from scorefield.core.shapes import shown
from scorefield.process.base import GaussianProcess, Process, check_process, count_levels
from scorefield.process.schedules import shifted
from scorefield.runtime.checks import brief, number, numbers, positive_int
from scorefield.runtime.description import Described, describe
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.parsing import build
from scorefield.runtime.registry import TIMES

__all__ = [
    "ImportanceTimes",
    "LearnedTimes",
    "ListedTimes",
    "LogitNormalTimes",
    "ShiftedTimes",
    "TimeSampling",
    "Times",
    "UniformTimes",
    "as_times",
    "times_config",
]


@runtime_checkable
class TimeSampling(Protocol):
    """A distribution of training times."""

    def draw(self, process: Process, batch: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """Times, and how much each counts.

        Args:
            process: The process whose times these are.
            batch: B, the number of times.
            noise: Where the draws come from.

        Returns:
            t (B,), and the importance weight of each, (B,) float64, both on the CPU: 1/(T p_t), or 1 where a
            time is to count as often as it is drawn.
        """
        ...


@runtime_checkable
class LearnedTimes(TimeSampling, Protocol):
    """Times whose distribution follows the losses: whoever trains updates them after every step, and saves their
    state.
    """

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Learn from the losses of a step.

        Args:
            t: Times, (N,).
            losses: What one example costs at each of them before any importance weight, (N,).
        """
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` restores."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state_dict()`.

        Args:
            state: What `state_dict` gave.
        """
        ...


Times = TimeSampling | Mapping[str, Any] | str | None


_MOST_LEVELS, _LONGEST_HISTORY, _LARGEST_BATCH = 10**7, 10_000, 10**8
_LARGEST_LOGIT = 100.0


def _check_draw(process: object, batch: int, noise: object) -> None:
    check_process(process)
    positive_int("batch, the number of times,", batch, at_most=_LARGEST_BATCH)
    check_noise(noise)


class UniformTimes(Described):
    """t uniform on 1 … T, or on [t_min, T] where t is continuous; every importance 1.  [DDPM Algorithm 1]"""

    def draw(self, process: Process, batch: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """t = ⌊T u⌋ + 1, or t_min + u·(T − t_min) where t is continuous, from uniform draws u.

        Args:
            process: The process whose times these are.
            batch: B, the number of times.
            noise: Where the draws come from.

        Returns:
            t (B,), int64 for a table of levels, otherwise float64, and ones (B,), both on the CPU.
        """
        _check_draw(process, batch, noise)
        u, one = noise.uniform((batch, 1))[:, 0].double(), torch.ones(batch, dtype=torch.float64)
        if isinstance(process, GaussianProcess) and not process.is_discrete:
            return process.t_min + u * (process.T - process.t_min), one
        T = count_levels(process, "drawing integer times")
        return (u * T).long().clamp_max(T - 1) + 1, one


class ListedTimes(Described):
    """Times of a list, each as often as any other, and what each counts: L_γ of a sub-sequence.  [DDIM Eq. 5]

    Args:
        times: Times above 0, (S,), such as those of a grid without its 0.
        weights: γ of each, (S,), at least 0, such as `sf.objectives.ddim_weights`. Default: 1.
    """

    def __init__(self, times: Sequence[float], weights: Sequence[float] | None = None) -> None:
        found = numbers("times", times, 1)
        gamma = torch.ones_like(found) if weights is None else numbers("weights", weights, 1)
        if not len(found) or len(gamma) != len(found):
            raise InputError(
                f"give one weight for each time, got {len(found)} times and {len(gamma)} weights"
            )
        if bool((gamma < 0).any()) or not bool((gamma > 0).any()):
            raise InputError(f"weights are at least 0, and one of them above; got {brief(weights)}")
        self._times, self._weights = found, gamma

    def draw(self, process: Process, batch: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """The ⌊S u⌋-th time of the list from uniform draws u.

        Args:
            process: The process whose times these are.
            batch: B, the number of times.
            noise: Where the draws come from.

        Returns:
            t (B,), int64 for a table of levels, otherwise float64, and γ_t (B,) float64, both on the CPU.

        Raises:
            InputError: For a time that is none of the process.
        """
        _check_draw(process, batch, noise)
        process.level(process.positive_time(self._times))
        u = noise.uniform((batch, 1))[:, 0].double()
        index = (u * len(self._times)).long().clamp_max(len(self._times) - 1)
        t = self._times[index]
        return (t.long() if process.is_discrete else t), self._weights[index]


class LogitNormalTimes(Described):
    """logit(t/T) ~ N(mean, std²) where t is continuous; every importance 1, so that the density is a weight.  [Esser et
    al. 2024, Eq. 19]

    On the straight path of `sf.process.flow` logit(t) is ln(σ/α), and shifting the times by s adds ln s to `mean`.

    Args:
        mean: Of logit(t/T); above 0 for more noise.
        std: Its standard deviation.
    """

    def __init__(self, mean: float = 0.0, std: float = 1.0) -> None:
        self.mean = number(
            "mean, that of logit(t/T),", mean, at_least=-_LARGEST_LOGIT, at_most=_LARGEST_LOGIT
        )
        self.std = number("std, that of logit(t/T),", std, above=0, at_most=_LARGEST_LOGIT)

    def draw(self, process: Process, batch: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """t = T/(1 + exp(−(mean + std·z))) from normal draws z, at least t_min.

        Args:
            process: A process with continuous t.
            batch: B, the number of times.
            noise: Where the draws come from.

        Returns:
            t and ones, (B,) float64, both on the CPU.

        Raises:
            IncompatibleModel: For a table of levels.
        """
        _check_draw(process, batch, noise)
        _need_continuous(process, "logit-normal times")
        z = noise.normal((batch, 1))[:, 0].double()
        t = process.T * torch.sigmoid(self.mean + self.std * z)
        return t.clamp_min(process.t_min), torch.ones(batch, dtype=torch.float64)


class ShiftedTimes(Described):
    """Uniform times moved by `sf.grids.shifted`'s rule, t/T = s·u/(1 + (s − 1)u), where t is continuous; every importance
    1.  [Esser et al. 2024, Eq. 23]

    Args:
        shift: s, from 0.001 to 1000; above 1 for more noise.
    """

    def __init__(self, shift: float = 3.0) -> None:
        shifted(torch.ones(()), shift)  # refuses what is no shift
        self.shift = shift

    def draw(self, process: Process, batch: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """The shifted times of `UniformTimes`.

        Args:
            process: A process with continuous t.
            batch: B, the number of times.
            noise: Where the draws come from.

        Returns:
            t and ones, (B,) float64, both on the CPU.

        Raises:
            IncompatibleModel: For a table of levels.
        """
        _check_draw(process, batch, noise)
        _need_continuous(process, "shifted times")
        t, one = UniformTimes().draw(process, batch, noise)
        return (process.T * shifted(t / process.T, self.shift)).clamp_min(process.t_min), one


def _need_continuous(process: Process, what: str) -> None:
    if process.is_discrete:
        raise IncompatibleModel(
            f"{what} need a process with continuous t, such as sf.process.flow(); for a table of levels use "
            '"uniform" or "importance" times'
        )


class ImportanceTimes(Described):
    """p_t ∝ √E[L_t²] over the last `history` losses of each t; uniform until every t has that many.
    [Improved DDPM Eq. 18]

    The state is a function of the losses given to `update` alone: processes that give the same lists in the same
    order hold the same distribution. Whoever trains gathers them, updates, and saves `state_dict()` with a
    checkpoint.

    Args:
        T: Levels of the process.
        history: Losses of each t that are kept.
        uniform_prob: Share of uniform draws mixed in; the published code has 0.001, the paper 0.
    """

    given = ("T",)

    def __init__(self, T: int, history: int = 10, uniform_prob: float = 0.0) -> None:
        positive_int("T", T, at_most=_MOST_LEVELS)
        positive_int("history", history, at_most=_LONGEST_HISTORY)
        self.uniform_prob = number("uniform_prob, a probability,", uniform_prob, at_least=0, at_most=1)
        self._losses = torch.zeros(T, history, dtype=torch.float64)  # a row a level, the newest loss last
        self._counts = torch.zeros(T, dtype=torch.int64)

    @property
    def warm(self) -> bool:
        """Whether every t has its history, so that draws are no longer uniform."""
        return bool((self._counts == self._losses.shape[1]).all())

    def probabilities(self) -> Tensor:
        """p_t for t = 1 … T, (T,) float64."""
        T = len(self._counts)
        uniform = torch.full((T,), 1 / T, dtype=torch.float64)
        root = (self._losses**2).mean(dim=1).sqrt()
        if not self.warm or root.sum() == 0:
            return uniform
        return (1 - self.uniform_prob) * root / root.sum() + self.uniform_prob * uniform

    def draw(self, process: Process, batch: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """t by inverting the distribution function at uniform draws.

        Args:
            process: A process of T levels.
            batch: B, the number of times.
            noise: Where the draws come from.

        Returns:
            t (B,) int64, and 1/(T p_t) (B,) float64, both on the CPU.

        Raises:
            InputError: For a process of another T.
        """
        _check_draw(process, batch, noise)
        T = len(self._counts)
        if count_levels(process, "importance sampling of t") != T:
            raise InputError(
                f"these importance-sampled times have T = {T} levels, but the process has {process.T}"
            )
        p = self.probabilities()
        edges = p.cumsum(0)
        u = noise.uniform((batch, 1))[:, 0].double() * edges[-1]
        # Never an index whose p is 0: right=True passes over empty steps, and the last step may only be
        # reached from below.
        index = torch.searchsorted(edges, u, right=True).clamp_max(int(p.nonzero()[-1]))
        return index + 1, 1 / (T * p[index])

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Append losses of these times, in order.

        Args:
            t: Times 1 … T, (N,).
            losses: What one example costs at each of them before any importance weight, (N,).
        """
        t, losses = numbers("t, the times,", t).reshape(-1), numbers("losses", losses).reshape(-1)
        T, history = self._losses.shape
        if t.shape != losses.shape or bool(((t < 1) | (t > T)).any()):
            raise InputError(
                f"update takes times 1 … {T} and one loss for each, got {shown(t)} and {len(losses)} losses"
            )
        for index, loss in zip((t.long() - 1).tolist(), losses.tolist(), strict=True):
            row = self._losses[index]
            row[:-1] = row[1:].clone()
            row[-1] = loss
            self._counts[index] = min(int(self._counts[index]) + 1, history)

    def state_dict(self) -> dict[str, Tensor]:
        """{"losses": (T, history) float64, newest last, "counts": (T,) int64}, copied."""
        return {"losses": self._losses.clone(), "counts": self._counts.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from an earlier `state_dict()`.

        Args:
            state: What `state_dict` gave.

        Raises:
            InputError: Where it belongs to another T or history.
        """
        wanted = {"losses": tuple(self._losses.shape), "counts": tuple(self._counts.shape)}
        tensors = isinstance(state, Mapping) and all(isinstance(value, Tensor) for value in state.values())
        shapes = {name: tuple(value.shape) for name, value in state.items()} if tensors else None
        if shapes != wanted:
            got = brief(state) if shapes is None else shapes
            raise InputError(
                f"this is not a state of these importance-sampled times: expected {wanted}, got {got}"
            )
        self._losses = state["losses"].detach().cpu().double().clone()
        self._counts = state["counts"].detach().cpu().long().clone()


def as_times(times: Times, process: Process) -> TimeSampling:
    """The sampling that a name such as "uniform", a table {"kind": name, **options} or nothing (uniform) describes."""
    if times is None:
        return UniformTimes()
    if isinstance(times, (str, Mapping)):
        table = {"kind": times} if isinstance(times, str) else times
        return build(TIMES, table, "times", {"T": process.T})
    if not isinstance(times, TimeSampling) or isinstance(times, type):
        raise InputError(
            f"times must be one of {', '.join(TIMES)}, or an object with draw(...), got {brief(times)}"
        )
    return times


def times_config(times: TimeSampling) -> dict[str, Any] | None:
    """What rebuilds the sampling from an objective's table; None of the default, uniform."""
    return None if type(times) is UniformTimes else describe(times)
