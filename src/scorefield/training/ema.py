"""Moving averages of a model's weights: exponential, warmed up so that early averages are not noise, and with a power
function as profile.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scorefield.runtime.errors import InputError
from scorefield.training.power_profiles import exponent
from scorefield.training.sharding import shard_like

__all__ = ["EMA", "Average", "PowerEMA"]


class Average(ABC):
    """θ̄ ← d_n θ̄ + (1 − d_n) θ after the n-th step. Buffers are copied, not averaged.

    Args:
        model: The model, whose tensors stay the same objects.
    """

    def __init__(self, model: nn.Module) -> None:
        self.shadow = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        # Found once: walking through the modules of a small network takes as long as averaging its weights.
        state = model.state_dict(keep_vars=True)
        trained = {name for name, _ in model.named_parameters() if name in state}
        self._weights = [state[name] for name in trained]
        self._averages = [self.shadow[name] for name in trained]
        self._copies = [(self.shadow[name], tensor) for name, tensor in state.items() if name not in trained]

    @abstractmethod
    def decay_at(self, step: int) -> float:
        """d_n of n = `step` (1, 2, …), in [0, 1)."""

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights of the model after `step` steps (1, 2, …)."""
        torch._foreach_lerp_(self._averages, self._weights, 1 - self.decay_at(step))
        for average, tensor in self._copies:
            average.copy_(tensor)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Replace the averages by saved ones of the same names and shapes."""
        for name, tensor in self.shadow.items():
            tensor.copy_(shard_like(shadow[name], tensor))


class EMA(Average):
    """d_n = min(decay, (1 + n)/(10 + n)): exponential, with a warm-up that depends on steps only.

    Args:
        model: As of `Average`.
        decay: In [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"the decay of the moving average must lie in [0, 1), got {decay!r}")
        super().__init__(model)
        self.decay = decay

    def decay_at(self, step: int) -> float:
        return min(self.decay, (1 + step) / (10 + step))


class PowerEMA(Average):
    """d_n = (1 − 1/n)^(γ+1): the weights of step τ count by τ^γ.  [Karras et al. 2024a Sec. 3.1]

    After n steps, step i has exactly the weight ∫ p(τ) dτ from i − 1 to i of the profile p, see `power_profiles`; the first
    weights of the model have none.

    Args:
        model: As of `Average`.
        length: σ_rel, see `power_profiles.exponent`.
    """

    def __init__(self, model: nn.Module, length: float) -> None:
        super().__init__(model)
        self.length, self._gamma = length, exponent(length)

    def decay_at(self, step: int) -> float:
        return float((1 - 1 / step) ** (self._gamma + 1))
