"""Distributions over data dimensions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.shapes import sum_flat

__all__ = ["Normal"]


@dataclass(frozen=True, slots=True)
class Normal:
    """N(mean, var) with independent dimensions. mean, var: (B, *), var broadcastable to mean; var = 0 is a point mass."""

    mean: Tensor
    var: Tensor

    @property
    def std(self) -> Tensor:
        return self.var.sqrt()

    def sample(self, z: Tensor) -> Tensor:
        """mean + std · z for a standard normal z of mean's shape."""
        return self.mean + self.std * z

    def log_prob(self, x: Tensor) -> Tensor:
        """ln N(x; mean, var) in nats, summed over dimensions: (B,)."""
        terms = (x - self.mean) ** 2 / self.var + self.var.log() + math.log(2 * math.pi)
        return -0.5 * sum_flat(terms)

    def kl(self, other: Normal) -> Tensor:
        """KL(self ‖ other) in nats, summed over dimensions: (B,)."""
        ratio = self.var / other.var
        terms = ratio - 1 - ratio.log() + (self.mean - other.mean) ** 2 / other.var
        return 0.5 * sum_flat(torch.broadcast_to(terms, self.mean.shape))
