"""q(x_t | x_0) as an object: what every process shares, and what every process with Gaussian noise shares."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.prediction import Level
from scorefield.core.shapes import expand
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = ["GaussianProcess", "Process", "Time", "as_time", "check_moments", "count_levels", "table_index"]

Time = int | float | Tensor


class Process(ABC):
    """Data at t = 0 that lose their information step by step, until t = T tells nothing about them.

    Not an nn.Module: levels are float64 on the CPU and no `.to(...)` reaches them.
    """

    T: int | float  # an integer exactly where the process is a table of levels

    @abstractmethod
    def level(self, t: Time) -> Any:
        """What describes the noise at t: float64 CPU tensors in t's shape. InputError for t outside [0, T]."""

    @abstractmethod
    def check_states(self, x: Tensor) -> None:
        """InputError unless x (B, *) can be a state of this process."""

    @abstractmethod
    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """x_T as sampling starts from it, (B, *)."""

    @property
    @abstractmethod
    def config(self) -> Mapping[str, Any]:
        """What rebuilds this process from a configuration file."""

    @property
    def levels(self) -> int | None:
        """How many levels its models were trained on, the unit of noise_input="index"; None where t is a real
        in [0, 1].
        """
        return self.T if isinstance(self.T, int) else None


class GaussianProcess(Process):
    """x_t = α_t x_0 + σ_t ε for 0 ≤ t ≤ T, with t = 0 the data and t = T the noisiest level.

    `prior_mean` and `prior_std` describe the Gaussian from which sampling starts.
    """

    prior_mean: float = 0.0
    prior_std: float = 1.0

    @abstractmethod
    def level(self, t: Time) -> Level:
        """(α_t, σ_t), float64 CPU tensors in t's shape. InputError for t outside [0, T]."""

    def check_states(self, x: Tensor) -> None:
        if not torch.is_floating_point(x):
            raise InputError(f"x must be floating point, got {x.dtype}")

    def sample(self, x0: Tensor, t: Time, eps: Tensor) -> Tensor:
        """x_t = α_t x_0 + σ_t ε.  [DDPM Eq. 4]   x0, eps: (B, *); t: a number or (B,)."""
        alpha, sigma = self.level(t)
        return expand(alpha, x0) * x0 + expand(sigma, x0) * eps

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """x_T ~ N(prior_mean, prior_std² I), (B, *) in the dtype of the draw."""
        return self.prior_mean + self.prior_std * noise.normal(shape)


def count_levels(process: Process, what: str) -> int:
    """T of a process given by a table of levels. IncompatibleModel, naming `what` was asked for, where t is
    continuous.
    """
    if isinstance(process.T, int):
        return process.T
    raise IncompatibleModel(
        f"{what} counts the levels of a discrete process, and t is continuous here: use a process made by from_betas or "
        "from_sigmas, or a grid such as sf.grids.uniform(process, n)"
    )


def as_time(t: Time) -> Tensor:
    """t as a CPU tensor, () or (B,). InputError for NaN, booleans or more dimensions."""
    # A Python float keeps its digits: torch would make it float32.
    tensor = torch.as_tensor(t, dtype=torch.float64 if isinstance(t, float) else None).detach().cpu()
    if tensor.ndim > 1 or tensor.dtype == torch.bool or not bool(torch.isfinite(tensor).all()):
        raise InputError(f"a time is a finite number or a one-dimensional tensor of them, got {t!r}")
    return tensor


def table_index(t: Time, T: int) -> Tensor:
    """t as int64 entries of a table of T + 1 levels, () or (B,). InputError for what lies between levels or
    outside 0 … T.
    """
    time = as_time(t)
    index = time.round().long() if time.is_floating_point() else time.long()
    if bool((index != time).any()):
        raise InputError(
            f"this process has levels at t = 0, 1, …, {T} only, got t = {_first(time, index != time)}"
        )
    outside = (index < 0) | (index > T)
    if bool(outside.any()):
        raise InputError(
            f"t must lie in 0 … {T} (0 is the data, {T} the noisiest), got {_first(time, outside)}"
        )
    return index


def check_moments(mean: float, std: float) -> None:
    """InputError unless these can be the mean and the standard deviation of data."""
    if not math.isfinite(mean) or not 0 <= std < math.inf:
        raise InputError(
            f"mean and std are the mean and the standard deviation of the data: finite, std not negative; got {mean} and {std}"
        )


def _first(t: Tensor, bad: Tensor) -> float:
    return float(t.reshape(-1)[bad.reshape(-1)][0])
