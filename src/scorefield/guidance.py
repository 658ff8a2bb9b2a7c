"""Guidance: wrappers Denoise -> Denoise whose order is visible."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.core.prediction import Prediction
from scorefield.denoiser import Wrapper
from scorefield.process.base import Time

__all__ = ["ClipX0"]


class ClipX0(Wrapper):
    """x̂0 clamped to the data's range; ε and score follow from the clamped x̂0.  [DDPM's and ADM's sampling code]

    low, high: the bounds; the range of the model's data if not given ([−1, 1] where the model does not say).
    """

    def __init__(self, model: Any, low: float | None = None, high: float | None = None) -> None:
        super().__init__(model)
        data_low, data_high = self.data.range if self.data is not None else (-1.0, 1.0)
        self.low = data_low if low is None else low
        self.high = data_high if high is None else high
        if not self.low < self.high:
            raise InputError(f"clipping needs low < high, got [{self.low}, {self.high}]")

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        pred = self.model(x_t, t)
        return replace(pred, x0=pred.x0.clamp(self.low, self.high))
