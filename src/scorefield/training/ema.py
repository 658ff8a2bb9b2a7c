"""An exponential moving average of a model's weights, warmed up so that early averages are not noise."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from scorefield.runtime.errors import InputError
from scorefield.training.sharding import shard_like

__all__ = ["EMA"]


class EMA:
    """θ̄ ← d_n θ̄ + (1 − d_n) θ after the n-th step, d_n = min(decay, (1 + n)/(10 + n)).

    The warm-up depends on steps only. Buffers are copied, not averaged.

    Args:
        model: The model, whose tensors stay the same objects.
        decay: In [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"the decay of the moving average must lie in [0, 1), got {decay!r}")
        self.decay = decay
        self.shadow = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        # Found once: walking through the modules of a small network takes as long as averaging its weights.
        state = model.state_dict(keep_vars=True)
        trained = {name for name, _ in model.named_parameters() if name in state}
        self._weights = [state[name] for name in trained]
        self._averages = [self.shadow[name] for name in trained]
        self._copies = [(self.shadow[name], tensor) for name, tensor in state.items() if name not in trained]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights of the model after `step` steps (1, 2, …)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._weights, 1 - decay)
        for average, tensor in self._copies:
            average.copy_(tensor)

    def load(self, shadow: Mapping[str, Tensor]) -> None:
        """Replace the averages by saved ones of the same names and shapes."""
        for name, tensor in self.shadow.items():
            tensor.copy_(shard_like(shadow[name], tensor))
