"""Guidance away from a weaker prediction: classifier-free guidance and autoguidance.

Both are x̂0 = x̂0_w + s(x̂0_m − x̂0_w). In classifier-free guidance the weaker prediction x̂0_w is that of the model without its
conditioning, in autoguidance that of a weaker model. Scale s = 1 is the model as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from scorefield.core.prediction import Level, Prediction
from scorefield.core.shapes import check_batch_of, expand, shown
from scorefield.models.base import Denoise, Labels
from scorefield.models.foreign import as_gaussian
from scorefield.models.guidance_scale import GuidanceScale, Interval, Scale, check_levels
from scorefield.models.wrappers import Given, Wrapper, as_labels, class_names, per_example
from scorefield.process.base import Time
from scorefield.runtime.checks import number
from scorefield.runtime.errors import IncompatibleModel

__all__ = ["Autoguidance", "ClassifierFree", "Extrapolation"]


class Extrapolation(Wrapper, ABC):
    """x̂0 = x̂0_w + s(x̂0_m − x̂0_w), away from a weaker prediction, in an interval of noise levels.

    ε̂, score and velocity are combined likewise, for all are affine in x̂0 at a given x_t. The variance is the model's.

    Args:
        model: An unguided model.
        scale: s: a number, (B,), or a function of t that returns either.
        interval: (low, high): the scale holds where low < σ/α ≤ high, and elsewhere it is 1. Default: everywhere.
        rescale: φ in [0, 1], by which the guided prediction takes on the standard deviation of the model's own.
    """

    def __init__(
        self, model: Denoise, scale: Scale, interval: Interval | None = None, rescale: float = 0.0
    ) -> None:
        super().__init__(as_gaussian(model, type(self).__name__))
        if self.model.guided:
            raise IncompatibleModel(
                f"{type(self).__name__} takes an unguided model: apply the other guidance to its result"
            )
        self.scale = GuidanceScale(scale, interval)
        self.rescale = number("rescale, the φ of rescaled guidance,", rescale, at_least=0, at_most=1)

    def options_shown(self) -> list[str]:
        return [*self.scale.shown(), *([f"rescale={self.rescale:g}"] if self.rescale else [])]

    @property
    def guided(self) -> bool:
        return True

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        check_batch_of("x_t", x_t)
        scale = self.scale.at(x_t, t, self.process, unguided=1.0)
        if scale is None:
            return self.alone(x_t, t)
        weak, pred = self.both(x_t, t)
        s = expand(scale, x_t)
        x0, raw = (torch.lerp(a, b, s) for a, b in ((weak.x0, pred.x0), (weak.raw, pred.raw)))
        guided = replace(pred, x0=x0, raw=raw)
        return guided if self.rescale == 0 else _rescaled(guided, pred, self.rescale)

    @abstractmethod
    def alone(self, x_t: Tensor, t: Time) -> Prediction:
        """The prediction at scale 1.

        Args:
            x_t: (B, *).
            t: A number or (B,), 0 < t ≤ T.
        """

    @abstractmethod
    def both(self, x_t: Tensor, t: Time) -> tuple[Prediction, Prediction]:
        """The weaker prediction, and the one at scale 1.

        Args:
            x_t: (B, *).
            t: A number or (B,), 0 < t ≤ T.
        """


class ClassifierFree(Extrapolation):
    """ε̂ = ε̂_u + s(ε̂_c − ε̂_u): s = 0 is the unconditional model, s = 1 the conditional one.  [Ho &
    Salimans 2022, with s = 1 + w]

    x̂0, score and velocity are combined likewise, for all are affine in ε̂ at a given x_t. The variance half
    is the conditional branch's. Both branches are one call of the network on 2B examples; outside of the interval the
    conditional branch alone is called, on B examples.

    In the unconditional branch labels are the null label, and every further array that is bound to the model,
    model.given(text=...), is replaced by the null that the network declares for it (`nulls`); what has none, such as
    the image that a super-resolution model upsamples, stays in both.

    Args:
        model: A conditional Denoiser trained with label_dropout, perhaps in a ClipX0, which then clips each branch; a
            ClipX0 around ClassifierFree clips their combination.
        y: One class or (B,); bound here, not by model.given. None for a model that is guided by further arrays only.
        scale: s: a number, (B,), or a function of t that returns either. At s > 1 neither the flow nor ancestral
            sampling ends in p(x)·p(y|x)^s (see the text of `models/guidance.py`).
        interval: (low, high): the scale holds where low < σ/α ≤ high, and elsewhere it is 1.  [Kynkäänniemi et al.
            2024] Default: everywhere.
        rescale: φ in [0, 1]: v̂ is multiplied by φ std(v̂_c)/std(v̂) + 1 − φ, with the standard deviations over each
            example.  [Lin et al. 2024 Sec. 3.4]

    Raises:
        IncompatibleModel: Where nothing can be dropped: the network has no row for dropped labels, and no bound array
            has a null. A network that does not describe itself (no `config`) is taken to know the label num_classes.
    """

    def __init__(
        self,
        model: Denoise,
        y: Labels | None,
        scale: Scale,
        interval: Interval | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(model, scale, interval, rescale)
        bound = [layer for layer in self.model.layers() if isinstance(layer, Given)]
        if y is not None and any(layer.labels is not None for layer in bound):
            raise IncompatibleModel(
                "ClassifierFree binds the labels itself: give it the model without .given(y)"
            )
        null = self.model.null_label
        if (y is not None and null is None) or (y is None and not any(layer.droppable for layer in bound)):
            raise IncompatibleModel(
                "classifier-free guidance needs an unconditional branch, which this model lacks: train a conditional "
                "model with label_dropout=0.1, or use classifier guidance"
            )
        self.null = null
        self.labels = None if y is None else as_labels(y, null or 0, class_names(self.model))

    def options_shown(self) -> list[str]:
        y = [] if self.labels is None else [f"y={shown(self.labels)}"]
        return [*y, *super().options_shown()]

    @property
    def num_classes(self) -> int:
        return 0

    @property
    def null_label(self) -> int | None:
        return None

    def alone(self, x_t: Tensor, t: Time) -> Prediction:
        return self.model.given(self.labels)(x_t, t)

    def both(self, x_t: Tensor, t: Time) -> tuple[Prediction, Prediction]:
        pred = self.model.branches(len(x_t), self._both_labels(x_t))(torch.cat([x_t, x_t]), _twice(t))
        conditional = replace(
            pred,
            x_t=x_t,
            level=Level(*map(_second, pred.level)),
            x0=pred.x0[len(x_t) :],
            raw=pred.raw[len(x_t) :],
            below=None if pred.below is None else Level(*map(_second, pred.below)),
            var_frac=None if pred.var_frac is None else _second(pred.var_frac),
            log_var=None if pred.log_var is None else _second(pred.log_var),
        )
        return replace(conditional, x0=pred.x0[: len(x_t)], raw=pred.raw[: len(x_t)]), conditional

    def _both_labels(self, x_t: Tensor) -> Tensor | None:
        """The null label B times and then the labels, (2B,)."""
        if self.labels is None or self.null is None:
            return None
        labels = per_example(self.labels, x_t, "labels")
        return torch.cat([torch.full_like(labels, self.null), labels])


class Autoguidance(Extrapolation):
    """ε̂ = ε̂_w + s(ε̂_m − ε̂_w), away from a weaker model of the same data: s = 1 is the model as it is.  [Karras et al.
    2024b]

    The weaker model is one of fewer parameters, fewer training steps, or both. It is given the same labels, or none where
    it is unconditional. Each step calls both models; outside of the interval, the model alone.

    Args:
        model: A Denoise. Bind its labels before, model.given(y), or after, Autoguidance(...).given(y).
        weak: A weaker Denoise on the same noise levels.
        scale: s: a number, (B,), or a function of t that returns either.
        interval: (low, high): the scale holds where low < σ/α ≤ high, and elsewhere it is 1. Default: everywhere.
        rescale: φ in [0, 1], as of `ClassifierFree`.

    Raises:
        IncompatibleModel: For a weaker model of other noise levels, and for models that are guided.
    """

    def __init__(
        self,
        model: Denoise,
        weak: Denoise,
        scale: Scale,
        interval: Interval | None = None,
        rescale: float = 0.0,
    ) -> None:
        super().__init__(model, scale, interval, rescale)
        self.weak = as_gaussian(weak, type(self).__name__)
        if self.weak.guided:
            raise IncompatibleModel("Autoguidance takes an unguided weaker model: remove its guidance")
        check_levels(self.process, self.weak.process, "weaker model")

    def options_shown(self) -> list[str]:
        inside = repr(self.weak) if isinstance(self.weak, Wrapper) else self.weak.kind
        return [f"weak={inside}", *super().options_shown()]

    def given(self, y: Labels | None = None, **arrays: Tensor) -> Self:
        new = self._around(self.model.given(y, **arrays))
        its = {name: array for name, array in arrays.items() if name in self.weak.arrays}
        new.weak = self.weak.given(y if self.weak.num_classes else None, **its)
        return new

    def refuse_missing(self, bound: Collection[str] = ()) -> None:
        super().refuse_missing(bound)
        self.weak.refuse_missing(bound)

    def run_in(self, dtype: torch.dtype | None) -> None:
        super().run_in(dtype)
        self.weak.run_in(dtype)

    def alone(self, x_t: Tensor, t: Time) -> Prediction:
        return self.model(x_t, t)

    def both(self, x_t: Tensor, t: Time) -> tuple[Prediction, Prediction]:
        weak, pred = self.weak(x_t, t), self.model(x_t, t)
        return replace(weak, raw=pred.raw), pred  # the output of another network may mean something else


def _rescaled(guided: Prediction, pred: Prediction, phi: float) -> Prediction:
    """v̂ times φ std(v̂_m)/std(v̂) + 1 − φ; from v̂, x̂0 = (α x_t − σ n v̂)/n² with n² = α² + σ².  [Lin et al. 2024
    Sec. 3.4]
    """
    x_t, v = guided.x_t, guided.velocity
    mine, its = (one.reshape(len(one), -1).std(dim=1, correction=0) for one in (pred.velocity, v))
    ratio = torch.where(its > 0, mine / its, 1)
    v = expand(phi * ratio + (1 - phi), v) * v
    alpha, sigma = guided.level
    n2 = alpha**2 + sigma**2
    return replace(guided, x0=expand(alpha / n2, x_t) * x_t - expand(sigma / n2.sqrt(), x_t) * v)


def _twice(t: Time) -> Time:
    return torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t


def _second(value: Tensor) -> Tensor:
    """The conditional half of what belongs to 2B examples; what belongs to all of them as it is."""
    return value if value.ndim == 0 else value.chunk(2)[1]
