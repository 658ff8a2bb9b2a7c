"""What an objective is: a module around a model that turns a batch into one loss an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from scorefield.core.noise import Noise
from scorefield.objectives.times import times_config
from scorefield.runtime.description import Described

__all__ = ["Loss", "Objective"]


class Loss(NamedTuple):
    """per_example: (B,), what is averaged and minimised.   t: (B,) the times drawn, or None.   parts: named
    (B,) terms, detached.

    unweighted: (B,) per_example before importance weights, detached: what importance-sampled times learn
    from.
    """

    per_example: Tensor
    t: Tensor | None
    parts: Mapping[str, Tensor]
    unweighted: Tensor | None = None


class Objective(nn.Module, Described, ABC):
    """Owns the model, so that one module holds everything that is trained.

    times: which t are drawn, for objectives that draw them. Where it has an `update`, whoever trains calls
    `times.update(t, unweighted)` with the losses of all processes after every step, and saves its
    `state_dict()`.
    needs_labels: whether y may not be None.   differentiates: whether the loss has a derivative of the model
    in it.
    """

    given = ("model",)
    model: nn.Module
    times: Any = None
    needs_labels: bool = False
    differentiates: bool = False

    def arguments(self) -> dict[str, Any]:
        """What rebuilds it around its model; of `times`, what is not the default."""
        said = super().arguments()
        return {**said, "times": times_config(self.times)} if "times" in said else said

    @abstractmethod
    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise) -> Loss:
        """x0: (B, *) data in the model's range; y: (B,) labels or None; every draw comes from `noise`."""
