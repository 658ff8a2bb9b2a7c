"""q(x_t | x_0) as an object: what every process with Gaussian noise shares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from scorefield.core.errors import IncompatibleModel, InputError
from scorefield.core.noise import Noise
from scorefield.core.prediction import Level
from scorefield.core.shapes import expand

__all__ = ["GaussianProcess", "Time", "as_time", "count_levels"]

Time = int | float | Tensor


class GaussianProcess(ABC):
    """x_t = α_t x_0 + σ_t ε for 0 ≤ t ≤ T, with t = 0 the data and t = T the noisiest level.

    Not an nn.Module: levels are float64 on the CPU and no `.to(...)` reaches them. `prior_mean` and `prior_std`
    describe the Gaussian from which sampling starts.
    """

    T: int | float  # an integer exactly where the process is a table of levels
    prior_mean: float = 0.0
    prior_std: float = 1.0

    @abstractmethod
    def level(self, t: Time) -> Level:
        """(α_t, σ_t), float64 CPU tensors in t's shape. InputError for t outside [0, T]."""

    @property
    @abstractmethod
    def spec(self) -> Mapping[str, Any]:
        """What rebuilds this process from a configuration file."""

    @property
    def levels(self) -> int | None:
        """How many levels its models were trained on, the unit of noise_input="index"; None where t is a real in [0, 1]."""
        return self.T if isinstance(self.T, int) else None

    def sample(self, x0: Tensor, t: Time, eps: Tensor) -> Tensor:
        """x_t = α_t x_0 + σ_t ε.  [DDPM Eq. 4]   x0, eps: (B, *); t: a number or (B,)."""
        alpha, sigma = self.level(t)
        return expand(alpha, x0) * x0 + expand(sigma, x0) * eps

    def prior(self, shape: Sequence[int], noise: Noise) -> Tensor:
        """x_T ~ N(prior_mean, prior_std² I), (B, *) in the dtype of the draw."""
        return self.prior_mean + self.prior_std * noise.normal(shape)


def count_levels(process: GaussianProcess, what: str) -> int:
    """T of a process given by a table of levels. IncompatibleModel, naming `what` was asked for, where t is continuous."""
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
