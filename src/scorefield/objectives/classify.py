"""The noisy classifier's objective: the class of x_0, predicted from x_t at every noise level."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.times import TimeSampling, UniformTimes
from scorefield.runtime.errors import InputError

__all__ = ["Classify"]


class Classify(Objective):
    """E_{t, ε} −ln p(y | x_t), the cross-entropy in nats, t uniform.  [ADM Sec. 4.3]

    Its least value is the entropy of y given x_t, averaged over t: the exact posterior attains it. The data
    must have labels.

    Args:
        model: A NoisyClassifier.
    """

    trains = NoisyClassifier
    model: NoisyClassifier
    times: TimeSampling
    needs_labels = True

    def __init__(self, model: NoisyClassifier) -> None:
        super().__init__()
        self.check_model(model)
        self.model = model
        self.times = UniformTimes()

    def forward(self, x0: Tensor, y: Tensor | None, noise: Noise, **arrays: Tensor) -> Loss:
        """The loss of each example. Draws t, then ε.

        Args:
            x0: Data (B, *) in the model's range.
            y: Labels (B,) int64.
            noise: Where every draw comes from.
            arrays: Not used.

        Returns:
            The losses (B,), the times drawn, and the part "accuracy", 1 where the likeliest class is y.

        Raises:
            InputError: Where there are no labels.
        """
        if y is None:
            raise InputError("a classifier is trained on labels: give y, (B,) classes")
        t, _ = self.times.draw(self.model.process, x0.shape[0], noise)
        logits = self.model(self.model.process.sample(x0, t, noise.normal_like(x0)), t)
        try:
            loss = F.cross_entropy(logits, y, reduction="none")
        except IndexError:
            raise InputError(
                f"labels y must lie in 0 … {logits.shape[1] - 1}, got values from {int(y.min())} to {int(y.max())}"
            ) from None
        return Loss(loss, t, {"accuracy": (logits.detach().argmax(dim=1) == y).to(loss)})
