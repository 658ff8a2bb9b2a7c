"""Guidance, clipping and thresholding: wrappers Denoise -> Denoise whose order is visible.

model = ClassifierGuidance(ClipX0(denoiser.given(y)), classifier, y, scale=1.0), then any sampler.

Around an unconditional model guidance at scale 1 is exact: the guided score is that of p_t(x|y), so whatever
a sampler makes of a model it makes of the guided one. At another scale s the score is that of
p_t(x)·p_t(y|x)^s at every t, but these are not the noisy versions of one density: neither the flow nor
ancestral sampling ends in p(x)·p(y|x)^s, however many steps they take. Langevin updates that stay at one t do
sample p_t(x)·p_t(y|x)^s.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from scorefield.core.prediction import Prediction
from scorefield.core.shapes import expand, shown
from scorefield.models.base import Classifier, Denoise, Labels
from scorefield.models.extrapolation import Autoguidance, ClassifierFree
from scorefield.models.foreign import as_classifier, as_gaussian
from scorefield.models.guidance_scale import GuidanceScale, Interval, Scale, check_levels
from scorefield.models.wrappers import Wrapper, as_labels, class_names, per_example
from scorefield.process.base import Time
from scorefield.runtime.checks import LARGEST, brief, number, one_of
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = ["Autoguidance", "ClassifierFree", "ClassifierGuidance", "ClipX0", "DynamicThreshold"]


class Bounded(Wrapper, ABC):
    """What ClipX0 and DynamicThreshold share: the bounds, and that a gradient around which they stand is
    folded in first.

    Args:
        model: Any Denoise.
        low: The lower bound. Default: that of the model's data, −1 where the model does not say.
        high: The upper bound. Default: that of the model's data, 1 where the model does not say.
    """

    def __init__(self, model: Denoise, low: float | None, high: float | None) -> None:
        super().__init__(as_gaussian(model, type(self).__name__))
        data_low, data_high = self.data.range if self.data is not None else (-1.0, 1.0)
        name = type(self).__name__
        self.low, self.high = (
            number(
                f"{end} of {name}", of_data if given is None else given, at_least=-LARGEST, at_most=LARGEST
            )
            for end, given, of_data in (("low", low, data_low), ("high", high, data_high))
        )
        if not self.low < self.high:
            raise InputError(f"{name} needs low < high, got [{self.low}, {self.high}]")
        if self.model.grad_at == "mean":
            raise IncompatibleModel(
                f'a gradient at the mean of a step cannot be folded into x̂0: put {name} inside ClassifierGuidance, or use at="x_t"'
            )

    def options_shown(self) -> list[str]:
        return [f"low={self.low:g}", f"high={self.high:g}"]

    @property
    def grad_at(self) -> str | None:
        return None

    @property
    def clips(self) -> bool:
        return True

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        pred: Prediction = self.model(x_t, t).guided(t)
        return replace(pred, x0=self.bounded(pred.x0))

    @abstractmethod
    def bounded(self, x0: Tensor) -> Tensor:
        """x̂0 within the bounds, (B, *).

        Args:
            x0: x̂0, (B, *).
        """


class ClipX0(Bounded):
    """x̂0 clamped to the data's range; ε and score follow from the clamped x̂0.  [DDPM's and ADM's sampling
    code]

    Inside ClassifierGuidance, as published, it clamps the model's own x̂0. Around it, it clamps the guided
    x̂0: the gradient is then placed by Algorithm 2 of ADM under every sampler, ancestral sampling too.

    Args:
        model: Any Denoise.
        low: The lower bound. Default: that of the model's data, −1 where the model does not say.
        high: The upper bound. Default: that of the model's data, 1 where the model does not say.
    """

    def __init__(self, model: Denoise, low: float | None = None, high: float | None = None) -> None:
        super().__init__(model, low, high)

    def bounded(self, x0: Tensor) -> Tensor:
        return x0.clamp(self.low, self.high)


class DynamicThreshold(Bounded):
    """x̂0 clamped to ±a and divided by a, where 1 ≤ a ≤ `largest` is a quantile of abs(x̂0) over each example.  [Saharia
    et al. 2022 §2.3, Imagen]

    Written for the range [−1, 1]; on another one u = (x̂0 − middle)/half takes the place of x̂0. It goes
    around guidance, whose large scales it keeps from saturating.

    Args:
        model: Any Denoise.
        quantile: The share of values that stay within the threshold, in (0, 1], linear between order
            statistics.
        low: The lower bound. Default: that of the model's data, −1 where the model does not say.
        high: The upper bound. Default: that of the model's data, 1 where the model does not say.
        largest: Upper limit of a, at least 1; 1 is a clip.
    """

    def __init__(
        self,
        model: Denoise,
        quantile: float = 0.995,
        low: float | None = None,
        high: float | None = None,
        largest: float = math.inf,
    ) -> None:
        super().__init__(model, low, high)
        if not isinstance(largest, float) or largest != math.inf:
            number("largest, the upper limit of the threshold,", largest, at_least=1, at_most=LARGEST)
        self.largest = largest
        share = "quantile, the share of values that stay within the threshold,"
        self.quantile = number(share, quantile, above=0, at_most=1)

    def options_shown(self) -> list[str]:
        limit = [] if self.largest == math.inf else [f"largest={self.largest:g}"]
        return [f"quantile={self.quantile:g}", *super().options_shown(), *limit]

    def bounded(self, x0: Tensor) -> Tensor:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        u = (x0 - middle) / half
        # An example at a time: torch.quantile refuses a whole batch of large images.
        # It takes no half precision.
        rows = u.abs().reshape(len(u), -1)
        rows = rows if rows.dtype == torch.float64 else rows.float()
        largest = torch.stack([torch.quantile(row, self.quantile) for row in rows])
        largest = largest.clamp(1, self.largest)
        a = expand(largest.to(u), u)
        return middle + half * u.clamp(-a, a) / a


class ClassifierGuidance(Wrapper):
    """The model with ∇ log p(y|x_t) of a classifier beside it, times `scale`, for the sampler to place.  [ADM
    Sec. 4]

    The reverse process given y is p(x_s | x_t, y) ∝ p(x_s | x_t)·p(y | x_s), since the noise is added without regard to y
    [ADM Eq. 2]; a step takes log p(y | x_s) as linear.
    Ancestral sampling shifts its mean, N(μ + s Σ ∇log p, Σ) [ADM Algorithm 1]; DDIM, the ODE solvers and Langevin
    shift ε̂ by −s σ_t ∇log p and x̂0 follows [ADM Algorithm 2]. The two agree only as steps become small, and at
    a scale s ≠ 1 neither ends in p(x)·p(y|x)^s (see this module's text). Likelihoods ignore the gradient.

    Args:
        model: Any Denoise, conditional (model.given(y)) or not; a ClipX0 inside clips before the shift, and
            nothing clips after it.
        classifier: Called (x_t, t) like a model, gives logits (B, K), differentiable in x_t; a module keeps
            its own dtype, and its parameters get no gradient.
        y: One class or (B,), by number or by name.
        scale: s: a number, (B,), or a function of t that returns either.
        at: Where ancestral sampling takes the gradient: "x_t" at (x_t, t), as published; "mean" at (μ, s),
            around which the paper expands log p(y|x_s). Samplers without such a mean refuse "mean".
        interval: (low, high): the classifier is called where low < σ/α ≤ high, and elsewhere the gradient is 0. Default:
            everywhere.

    Raises:
        IncompatibleModel: For a classifier of other noise levels, where it has a `process`.
    """

    def __init__(
        self,
        model: Denoise,
        classifier: Classifier,
        y: Labels,
        scale: Scale = 1.0,
        at: str = "x_t",
        interval: Interval | None = None,
    ) -> None:
        super().__init__(as_gaussian(model, type(self).__name__))
        judge = as_classifier(classifier)
        one_of("at, where ancestral sampling takes the gradient,", at, ("x_t", "mean"))
        if self.model.grad_at not in (None, at):
            raise IncompatibleModel(
                f"two stacked classifiers must take their gradients at the same point; got {self.model.grad_at} and "
                f"{at}"
            )
        check_levels(self.process, judge.process, "classifier")
        self.classifier = judge
        self.labels = as_labels(y, judge.num_classes, class_names(judge) or class_names(self.model))
        self.scale = GuidanceScale(scale, interval)
        self.at = at

    def options_shown(self) -> list[str]:
        return [f"y={shown(self.labels)}", *self.scale.shown(), f"at={self.at!r}"]

    @property
    def guided(self) -> bool:
        return True

    @property
    def grad_at(self) -> str | None:
        return self.at

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        pred: Prediction = self.model(x_t, t)
        inner = pred.log_p_grad
        total = self.log_p_grad if inner is None else lambda x, t: inner(x, t) + self.log_p_grad(x, t)
        return replace(pred, log_p_grad=total, grad_at=self.at)

    def log_p_grad(self, x: Tensor, t: Time) -> Tensor:
        """scale·∇_x log p(y | x_t = x), (B, *) in x's dtype.

        Args:
            x: (B, *).
            t: The time of x, a number or (B,).

        Raises:
            InputError: For logits that do not fit, and for a gradient that is not finite.
        """
        scale = self.scale.at(x, t, self.process, unguided=0.0)
        if scale is None:
            return torch.zeros_like(x)
        # The loop of every sampler forbids gradients; inference mode would also forbid them to its tensors,
        # but not to a copy.
        with torch.inference_mode(False), torch.enable_grad():
            point = x.detach().clone().requires_grad_()
            logits = self.classifier(point.to(self.classifier.dtype or x.dtype), t)
            log_p = torch.log_softmax(_checked(logits, x).to(x.dtype), dim=1)
            labels = per_example(as_labels(self.labels, log_p.shape[1]), x, "labels").to(x.device)
            (gradient,) = torch.autograd.grad(
                log_p.gather(1, labels[:, None]).sum(), point, allow_unused=True
            )
        if gradient is None:
            raise InputError(
                "the classifier's logits do not depend on x_t, or not by differentiable operations"
            )
        if not bool(torch.isfinite(gradient).all()):
            raise InputError(
                f"the gradient of log p(y|x_t) is not finite at t = {t}: the classifier has diverged, or x_t has"
            )
        return expand(scale, x) * gradient


def _checked(logits: object, x: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != x.shape[0]:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else brief(logits)
        raise InputError(f"a classifier returns logits of shape (B, K), here ({x.shape[0]}, K); got {got}")
    if not logits.requires_grad:
        raise InputError("the classifier's logits do not depend on x_t, or not by differentiable operations")
    return logits
