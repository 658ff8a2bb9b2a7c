"""q(x_t | x_0) as an object: what every process shares, and what every process with Gaussian noise shares."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scorefield.core.distributions import Normal
from scorefield.core.noise import Noise, as_noise
from scorefield.core.prediction import Level, Prediction
from scorefield.core.shapes import check_batch_of, check_real, expand
from scorefield.process import transitions
from scorefield.runtime.checks import LARGEST, brief, check_length, number
from scorefield.runtime.description import Described
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = [
    "GaussianProcess",
    "Process",
    "Time",
    "as_log_ratio",
    "as_time",
    "check_moments",
    "check_process",
    "count_levels",
    "table_index",
]

Time = int | float | Tensor

_START = 1e-3  # the share of T from which a model of continuous time is used, where its process does not say
_NO_TIME = torch.tensor(math.nan)
_NO_TIMES = (torch.bool, torch.complex32, torch.complex64, torch.complex128)
_SAME_LEVEL = 1e-6  # by which α and σ of the same level may differ
_HALVINGS = 100  # of [0, T], until t has all its digits


class Process(Described, ABC):
    """Data at t = 0 that lose their information step by step, until t = T tells nothing about them.

    Not an nn.Module: levels are float64 on the CPU and no `.to(...)` reaches them.
    """

    T: int | float  # an integer exactly where the process is a table of levels

    @abstractmethod
    def level(self, t: Time) -> Any:
        """What describes the noise at t.

        Args:
            t: A number or (B,), in [0, T].

        Returns:
            float64 CPU tensors in t's shape.

        Raises:
            InputError: For t outside [0, T].
        """

    @abstractmethod
    def check_states(self, x: Tensor) -> None:
        """Check that x can be a state of this process.

        Args:
            x: Anything; a state is (B, *).

        Raises:
            InputError: For another shape, dtype or values than a state has.
        """

    @abstractmethod
    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """x_T as sampling starts from it, (B, *).

        Args:
            shape: (B, *).
            noise: Where the draw comes from.
        """

    @property
    def is_discrete(self) -> bool:
        """Whether its levels are a table, at t = 0, 1, …, T; otherwise t is a real number in [0, T]."""
        return isinstance(self.T, int)

    @cached_property
    def t_min(self) -> int | float:
        """The least noisy time that a model is asked about, where grids end before t = 0. Default: 1 of a table of
        levels, T/1000 otherwise.
        """
        return 1 if self.is_discrete else _START * self.T

    @property
    def levels(self) -> int | None:
        """How many levels its models were trained on, the unit of noise_input="index"; None where t is a real
        in [0, 1].
        """
        return self.T if isinstance(self.T, int) else None

    def positive_time(self, t: Time) -> Tensor:
        """t as a CPU tensor, () or (B,).

        Args:
            t: A number or (B,), above 0.

        Raises:
            InputError: For t = 0, the data itself, where no model is called.
        """
        time = as_time(t)
        if bool((time <= 0).any()):
            smallest = "discrete processes start at t = 1" if self.is_discrete else "t is a real number here"
            raise InputError(
                f"t must be > 0, since x_0 is the data ({smallest}); got {_first(time, time <= 0):g}"
            )
        return time


class GaussianProcess(Process):
    """x_t = α_t x_0 + σ_t ε for 0 ≤ t ≤ T, with t = 0 the data and t = T the noisiest level.

    `prior_mean` and `prior_std` describe the Gaussian from which sampling starts. A process of one's own gives `T`
    (an integer for a table of levels, otherwise a real number) and `level`.
    """

    prior_mean: float = 0.0
    prior_std: float = 1.0

    @abstractmethod
    def level(self, t: Time) -> Level:
        """(α_t, σ_t), float64 CPU tensors in t's shape.

        Args:
            t: A number or (B,), in [0, T]; an integer where the process is a table of levels.

        Raises:
            InputError: For t outside [0, T], and for t between the levels of a table.
        """

    @cached_property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the data is left at t = T: α_T = 0."""
        return bool(self.level(self.T).alpha == 0)

    def check_states(self, x: Tensor) -> None:
        check_batch_of("x", x)

    def sample(self, x0: Tensor, t: Time, eps: Tensor) -> Tensor:
        """x_t = α_t x_0 + σ_t ε.  [DDPM Eq. 4]

        Args:
            x0: Data, (B, *).
            t: A number or (B,), in [0, T].
            eps: ε ~ N(0, I), (B, *).

        Returns:
            x_t, (B, *).
        """
        check_batch_of("x0", x0)
        check_batch_of("eps", eps, like=x0)
        alpha, sigma = self.level(t)
        return expand(alpha, x0) * x0 + expand(sigma, x0) * eps

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """x_T ~ N(prior_mean, prior_std² I), (B, *) in the dtype of the draw.

        Args:
            shape: (B, *).
            noise: Where the draw comes from.
        """
        return self.prior_mean + self.prior_std * as_noise(noise).normal(shape)

    def transition(self, t: Time, s: Time) -> tuple[Tensor, Tensor]:
        """q(x_t | x_s) = N(α_{t|s} x_s, σ²_{t|s} I).  [DDPM Eq. 2, for any pair of times]

        Args:
            t: The noisier time, a number or (B,).
            s: The less noisy time, a number or (B,), 0 ≤ s < t.

        Returns:
            α_{t|s} and σ²_{t|s}, float64 in the shape of t or s.

        Raises:
            InputError: Unless s lies below t.
        """
        hi, lo = self._pair(t, s)
        return transitions.transition(hi, lo)

    def posterior(self, x_t: Tensor, x0: Tensor, t: Time, s: Time) -> Normal:
        """q(x_s | x_t, x_0).  [DDPM Eq. 6–7, for any pair of times]

        Args:
            x_t: (B, *).
            x0: x_0, (B, *).
            t: The time of x_t, a number or (B,).
            s: The less noisy time, a number or (B,), 0 ≤ s < t.

        Returns:
            A normal distribution with mean (B, *) and a variance that broadcasts to it.

        Raises:
            InputError: Unless s lies below t.
        """
        check_batch_of("x_t", x_t)
        check_batch_of("x0", x0, like=x_t)
        hi, lo = self._pair(t, s)
        return transitions.posterior(x_t, x0, hi, lo)

    def reverse(
        self,
        pred: Prediction,
        t: Time,
        s: Time,
        variance: transitions.Variance = "lower",
        above: Time | None = None,
    ) -> Normal:
        """p(x_s | x_t): the posterior with x̂0 in the place of x_0.  [DDPM §3.2; Improved DDPM Eq. 15]

        Args:
            pred: What a model predicts at x_t and t, (B, *).
            t: The time of x_t, a number or (B,).
            s: The less noisy time, a number or (B,), 0 ≤ s < t.
            variance: "lower", σ²_{t|s}σ_s²/σ_t² (β̃), "upper", σ²_{t|s} (β), or "learned" (the network's variance half).
            above: The time over t in the grid, which sets the variance of a step to s = 0, where "lower" would be 0: that
                of the step from it to t. Default: σ²_{t|0}.

        Returns:
            A normal distribution with mean (B, *) and a variance that broadcasts to it.

        Raises:
            InputError: Unless s lies below t, and where the prediction belongs to another level.
            IncompatibleModel: For "learned" of a model without a variance head.
        """
        hi, lo = self._pair(t, s)
        if not isinstance(pred, Prediction):
            raise InputError(f"pred is what a model returns, model(x_t, t), got {brief(pred)}")
        if not _same_level(pred.level, hi):
            raise InputError(f"this prediction was made at another level than that of t = {brief(t)}")
        return transitions.reverse(pred, hi, lo, variance, None if above is None else self._pair(above, t)[0])

    def time(self, log_ratio: Tensor) -> Tensor:
        """The t in (0, T] at which λ = ln(α/σ), which falls with t, has these values. Here by bisection;
        processes that can invert `level` do.

        Args:
            log_ratio: Values of λ, in any shape.

        Returns:
            float64, in the shape of log_ratio.

        Raises:
            IncompatibleModel: For a table of levels, which has no time for every λ.
        """
        if self.is_discrete:
            raise IncompatibleModel(
                "a table of levels has no time for every σ/α: use sf.process.Interpolated(process)"
            )
        log_ratio = as_log_ratio(log_ratio)
        wanted = log_ratio.reshape(-1)
        low, high = torch.zeros_like(wanted), torch.full_like(wanted, self.T)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            alpha, sigma = self.level(middle)
            noisier = (alpha / sigma).log() < wanted
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return high.reshape(log_ratio.shape)

    def _pair(self, t: Time, s: Time) -> tuple[Level, Level]:
        high, low = as_time(t), as_time(s)
        if high.ndim and low.ndim and len(high) != len(low):
            raise InputError(
                f"t and s are times of the same examples, got {len(high)} and {len(low)} of them"
            )
        if bool((low >= high).any()):
            raise InputError(
                f"noise is added from s up to t, so s must lie below t; got t = {brief(t)} and s = {brief(s)}"
            )
        return self.level(t), self.level(s)


def _same_level(a: Level, b: Level) -> bool:
    """Whether two levels, () or (B,), agree for every example."""
    if a.alpha.ndim and b.alpha.ndim and len(a.alpha) != len(b.alpha):
        return False
    return all(bool(((x - y).abs() <= _SAME_LEVEL).all()) for x, y in zip(a, b, strict=True))


def check_process(process: object) -> None:
    """InputError for what is no process."""
    if not isinstance(process, Process):
        raise InputError(f"process must be one such as sf.process.cosine(1000), got {brief(process)}")


def count_levels(process: Process, what: str) -> int:
    """T of a process given by a table of levels. IncompatibleModel, naming `what` was asked for, where t is
    continuous.
    """
    check_process(process)
    if isinstance(process.T, int):  # `is_discrete`, in the words of a type checker
        return process.T
    raise IncompatibleModel(
        f"{what} needs a discrete-time process, such as sf.process.cosine(T); for continuous time use a grid "
        "such as sf.grids.uniform(process, n)"
    )


def as_time(t: Time) -> Tensor:
    """t as a CPU tensor, () or (B,). InputError for NaN, booleans or more dimensions."""
    if (whole := _whole(t)) is not None:
        return torch.tensor(whole)
    if not isinstance(t, Tensor | int | float):
        check_length("times", t)
    try:
        # A Python float keeps its digits: torch would make it float32.
        tensor = torch.as_tensor(t, dtype=torch.float64 if isinstance(t, float) else None).detach().cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):  # of words, objects, numbers beyond int64
        tensor = _NO_TIME
    if (
        tensor.ndim > 1
        or tensor.dtype in _NO_TIMES
        or not tensor.numel()
        or (tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()))
    ):
        raise InputError(f"a time is a finite number or a one-dimensional tensor of them, got {brief(t)}")
    return tensor


def as_log_ratio(log_ratio: Tensor) -> Tensor:
    """λ = ln(α/σ) as a float64 CPU tensor. InputError for what is no tensor of numbers, and for NaN."""
    if not check_real("log_ratio", log_ratio, "a tensor of values of ln(α/σ)").is_floating_point():
        raise InputError(f"log_ratio is a tensor of values of ln(α/σ), got {brief(log_ratio)}")
    found = log_ratio.detach().cpu().double()
    if bool(found.isnan().any()):
        raise InputError("log_ratio must hold values of ln(α/σ), and some of them are NaN")
    return found


def table_index(t: Time, T: int) -> Tensor:
    """t as int64 entries of a table of T + 1 levels, () or (B,). InputError for what lies between levels or
    outside 0 … T.
    """
    if (whole := _whole(t)) is not None and 0 <= whole <= T:
        return torch.tensor(whole)
    time = as_time(t)
    index = time.round().long() if time.is_floating_point() else time.long()
    if time.is_floating_point() and bool((index != time).any()):
        raise InputError(
            f"this process has levels at t = 0, 1, …, {T} only, got t = {_first(time, index != time)}"
        )
    lowest, highest = index.aminmax()
    if int(lowest) < 0 or int(highest) > T:
        outside = (index < 0) | (index > T)
        raise InputError(
            f"t must lie in 0 … {T} (0 is the data, {T} the noisiest), got {_first(time, outside)}"
        )
    return index


def _whole(t: Time) -> int | None:
    """t, where it is one integer: samplers give these at every step, and then there is less to check than of tensors."""
    if isinstance(t, Tensor):
        return int(t) if t.ndim == 0 and t.dtype == torch.int64 and t.device.type == "cpu" else None
    return t if type(t) is int and abs(t) < 2**63 else None


def check_moments(mean: float, std: float) -> None:
    """InputError unless these can be the mean and the standard deviation of data."""
    number("mean, that of the data,", mean, at_least=-LARGEST, at_most=LARGEST)
    number("std, the standard deviation of the data,", std, at_least=0, at_most=LARGEST)


def _first(t: Tensor, bad: Tensor) -> float:
    return float(t.reshape(-1)[bad.reshape(-1)][0])
