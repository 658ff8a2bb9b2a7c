"""What an objective is: a module around a model that turns a batch into one loss an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from scorefield.core.noise import Noise
from scorefield.models.denoiser import Denoiser
from scorefield.models.network_model import ModelBase
from scorefield.objectives.times import TimeSampling, times_config
from scorefield.runtime.description import Described
from scorefield.runtime.errors import IncompatibleModel

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

    times: which t are drawn, for objectives that draw them. Where they are `LearnedTimes`, whoever trains calls
    `times.update(t, unweighted)` with the losses of all processes after every step, and saves their
    `state_dict()`.
    trains: the kind of model.   needs_labels: whether y may not be None.   differentiates: whether the loss has a
    derivative of the model in it.
    """

    trains: ClassVar[type[ModelBase]] = Denoiser
    given = ("model",)
    model: nn.Module
    times: TimeSampling | None = None
    needs_labels: bool = False
    differentiates: bool = False

    def arguments(self) -> dict[str, object]:
        """What rebuilds it around its model; of `times`, what is not the default."""
        said = super().arguments()
        return (
            {**said, "times": times_config(self.times)}
            if "times" in said and self.times is not None
            else said
        )

    def check_model(self, model: object) -> None:
        """IncompatibleModel for a kind of model that is trained by other objectives."""
        if isinstance(model, ModelBase) and not isinstance(model, self.trains):
            raise IncompatibleModel(
                f"{type(self).__name__} trains a {self.trains.__name__}, {self.trains.summary}; a {type(model).__name__} is trained by "
                f"{model.objectives}"
            )

    @abstractmethod
    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        """The loss of each example.

        Args:
            x0: Data (B, *) in the model's range.
            y: Labels (B,) int64, or None.
            noise: Where every draw comes from.
            arrays: What the model is conditioned on besides, (B, *) by name; of a super-resolution model `low_res`, see
                `Model.conditioning`.
        """
