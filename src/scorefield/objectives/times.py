"""Which t: the distribution of training times."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.process.base import GaussianProcess

__all__ = ["TimeSampling", "UniformTimes"]


@runtime_checkable
class TimeSampling(Protocol):
    """draw: -> t (B,) and the importance weight 1/(T p_t) of each, (B,) float64, both on the CPU."""

    def draw(self, process: GaussianProcess, batch: int, noise: Noise) -> tuple[Tensor, Tensor]: ...


class UniformTimes:
    """t uniform on 1 … T, every importance 1.  [DDPM Algorithm 1]"""

    def draw(self, process: GaussianProcess, batch: int, noise: Noise) -> tuple[Tensor, Tensor]:
        u = noise.uniform((batch, 1))[:, 0].double()
        t = (u * process.T).long().clamp_max(process.T - 1) + 1
        return t, torch.ones(batch, dtype=torch.float64)
