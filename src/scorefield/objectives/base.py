"""What an objective is: a module around a model that turns a batch into one loss an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from scorefield.core.noise import Noise, check_noise
from scorefield.core.shapes import check_batch_of
from scorefield.models.base import ScoreFunction
from scorefield.models.denoiser import Denoiser
from scorefield.models.network_model import ModelBase, checked_labels
from scorefield.objectives.times import TimeSampling, times_config
from scorefield.process.base import Process
from scorefield.runtime.checks import brief
from scorefield.runtime.description import Described
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = ["Loss", "Objective"]


class Loss(NamedTuple):
    """What an objective gives for a batch.

    Attributes:
        per_example: What is averaged and minimised, (B,).
        t: The times drawn, (B,), or None.
        parts: Terms of the loss by name, (B,) each, detached.
        unweighted: per_example before importance weights, (B,), detached: what importance-sampled times
            learn from.
    """

    per_example: Tensor
    t: Tensor | None
    parts: Mapping[str, Tensor]
    unweighted: Tensor | None = None


class Objective(nn.Module, Described, ABC):
    """Owns the model, so that one module holds everything that is trained.

    Attributes:
        model: The model that is trained.
        times: Which t are drawn, for objectives that draw them. Where they are `LearnedTimes`, whoever
            trains calls `times.update(t, unweighted)` with the losses of all processes after every step, and
            saves their `state_dict()`.
        trains: The kind of model.
        needs_labels: Whether y may not be None.
        differentiates: Whether the loss has a derivative of the model in it.
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
        """Check that this objective trains such a model.

        Args:
            model: Anything.

        Raises:
            IncompatibleModel: For what is no model, and for a kind of model that is trained by other
                objectives.
        """
        own = not isinstance(model, ModelBase)
        bare = (
            own and not self.trains.takes(None) and not isinstance(getattr(model, "process", None), Process)
        )
        scoreless = own and self.trains.takes(None) and not isinstance(model, ScoreFunction)
        if not isinstance(model, nn.Module) or bare or scoreless:
            raise IncompatibleModel(
                f"{type(self).__name__} trains a {self.trains.__name__}, {self.trains.summary}; got {brief(model)}"
            )
        if not own and not isinstance(model, self.trains):
            raise IncompatibleModel(
                f"{type(self).__name__} trains a {self.trains.__name__}, {self.trains.summary}; a {type(model).__name__} is trained by "
                f"{model.objectives}"
            )

    def __call__(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Any:
        """`forward`, after a check of what every objective is given.

        The values of tensors are not looked at, which would make the host wait for the device; a loss that
        is not finite is noticed by whoever trains.

        Args:
            x0: Data (B, *) in the model's range.
            y: Labels (B,) int64, or None.
            noise: Where every draw comes from.
            arrays: What the model is conditioned on besides, (B, *) by name.

        Raises:
            InputError: For x0, labels or noise that are none.
        """
        self.check_data(x0)
        if y is not None:
            y = checked_labels(y, x0)
        check_noise(noise)
        for name, array in arrays.items():
            if not isinstance(array, Tensor) or array.shape[:1] != x0.shape[:1]:
                got = f"shape {tuple(array.shape)}" if isinstance(array, Tensor) else brief(array)
                raise InputError(
                    f"{name} must be a tensor of {len(x0)} rows, one for each example; got {got}"
                )
        return super().__call__(x0, y, noise, **arrays)

    def check_data(self, x0: Tensor) -> None:
        """Check that x0 is a batch of the data.

        Args:
            x0: Floating-point numbers (B, *).

        Raises:
            InputError: For anything else.
        """
        check_batch_of("x0", x0)

    @abstractmethod
    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        """The loss of each example.

        Args:
            x0: Data (B, *) in the model's range.
            y: Labels (B,) int64, or None.
            noise: Where every draw comes from.
            arrays: What the model is conditioned on besides, (B, *) by name; of a super-resolution model
                `low_res`, see `Model.conditioning`.

        Returns:
            The losses (B,), the times drawn, and the parts of the loss.
        """
