"""Guidance, clipping and thresholding: wrappers Denoise -> Denoise whose order is visible.

model = ClassifierGuidance(ClipX0(denoiser.given(y)), classifier, y, scale=1.0), then any sampler.

Around an unconditional model guidance at scale 1 is exact: the guided score is that of p_t(x|y), so whatever
a sampler makes of a model it makes of the guided one. At another scale s the score is that of
p_t(x)·p_t(y|x)^s at every t, but these are not the noisy versions of one density: neither the flow nor
ancestral sampling ends in p(x)·p(y|x)^s, however many steps they take. Langevin updates that stay at one t do
sample p_t(x)·p_t(y|x)^s.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from scorefield.core.prediction import Level, Prediction
from scorefield.core.shapes import check_batch_of, expand, shown
from scorefield.models.base import Classifier, Denoise, Labels
from scorefield.models.foreign import as_classifier, as_gaussian
from scorefield.models.wrappers import Given, Wrapper, as_labels, class_names, per_example
from scorefield.process.base import GaussianProcess, Time
from scorefield.runtime.checks import LARGEST, brief, number, numbers, one_of
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = ["ClassifierFree", "ClassifierGuidance", "ClipX0", "DynamicThreshold"]

Scale = float | Sequence[float] | Tensor

# Two tables of levels may have been rounded on their ways, as those of published weights are; other schedules
# differ far more.
_SAME_LEVEL = 1e-3


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
    """x̂0 clamped to ±a and divided by a, where a ≥ 1 is a quantile of abs(x̂0) over each example.  [Saharia
    et al. 2022 §2.3, Imagen]

    Written for the range [−1, 1]; on another one u = (x̂0 − middle)/half takes the place of x̂0. It goes
    around guidance, whose large scales it keeps from saturating.

    Args:
        model: Any Denoise.
        quantile: The share of values that stay within the threshold, in (0, 1], linear between order
            statistics.
        low: The lower bound. Default: that of the model's data, −1 where the model does not say.
        high: The upper bound. Default: that of the model's data, 1 where the model does not say.
    """

    def __init__(
        self,
        model: Denoise,
        quantile: float = 0.995,
        low: float | None = None,
        high: float | None = None,
    ) -> None:
        super().__init__(model, low, high)
        share = "quantile, the share of values that stay within the threshold,"
        self.quantile = number(share, quantile, above=0, at_most=1)

    def options_shown(self) -> list[str]:
        return [f"quantile={self.quantile:g}", *super().options_shown()]

    def bounded(self, x0: Tensor) -> Tensor:
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        u = (x0 - middle) / half
        # An example at a time: torch.quantile refuses a whole batch of large images.
        # It takes no half precision.
        rows = u.abs().reshape(len(u), -1)
        rows = rows if rows.dtype == torch.float64 else rows.float()
        largest = torch.stack([torch.quantile(row, self.quantile) for row in rows]).clamp_min(1)
        a = expand(largest.to(u), u)
        return middle + half * u.clamp(-a, a) / a


class ClassifierGuidance(Wrapper):
    """The model with ∇ log p(y|x_t) of a classifier beside it, times `scale`, for the sampler to place.  [ADM
    Sec. 4]

    Ancestral sampling shifts its mean, N(μ + s Σ ∇log p, Σ) [ADM Algorithm 1]; DDIM, the ODE solvers and Langevin
    shift ε̂ by −s σ_t ∇log p and x̂0 follows [ADM Algorithm 2]. The two agree only as steps become small, and at
    a scale s ≠ 1 neither ends in p(x)·p(y|x)^s (see this module's text). Likelihoods ignore the gradient.

    Args:
        model: Any Denoise, conditional (model.given(y)) or not; a ClipX0 inside clips before the shift, and
            nothing clips after it.
        classifier: Called (x_t, t) like a model, gives logits (B, K), differentiable in x_t; a module keeps
            its own dtype, and its parameters get no gradient.
        y: One class or (B,), by number or by name.
        scale: s, a number or (B,).
        at: Where ancestral sampling takes the gradient: "x_t" at (x_t, t), as published; "mean" at (μ, s),
            around which the paper expands log p(y|x_s). Samplers without such a mean refuse "mean".

    Raises:
        IncompatibleModel: For a classifier of other noise levels, where it has a `process`.
    """

    def __init__(
        self, model: Denoise, classifier: Classifier, y: Labels, scale: Scale = 1.0, at: str = "x_t"
    ) -> None:
        super().__init__(as_gaussian(model, type(self).__name__))
        judge = as_classifier(classifier)
        one_of("at, where ancestral sampling takes the gradient,", at, ("x_t", "mean"))
        if self.model.grad_at not in (None, at):
            raise IncompatibleModel(
                f"two stacked classifiers must take their gradients at the same point; got {self.model.grad_at} and "
                f"{at}"
            )
        _check_levels(self.process, judge.process)
        self.classifier = judge
        self.labels = as_labels(y, judge.num_classes, class_names(judge) or class_names(self.model))
        self.scale = _as_scale(scale)
        self.at = at

    def options_shown(self) -> list[str]:
        return [f"y={shown(self.labels)}", f"scale={shown(self.scale)}", f"at={self.at!r}"]

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
        return expand(per_example(self.scale, x, "scales"), x) * gradient


class ClassifierFree(Wrapper):
    """ε̂ = ε̂_u + s(ε̂_c − ε̂_u): s = 0 is the unconditional model, s = 1 the conditional one.  [Ho &
    Salimans 2022, with s = 1 + w]

    x̂0, score and velocity are combined likewise, for all are affine in ε̂ at a given x_t. The variance half
    is the conditional branch's. Both branches are one call of the network on 2B examples.

    In the unconditional branch labels are the null label, and every further array that is bound to the model,
    model.given(text=...), is replaced by the null that the network declares for it (`nulls`); what has none, such as
    the image that a super-resolution model upsamples, stays in both.

    Args:
        model: A conditional Denoiser trained with label_dropout, perhaps in a ClipX0, which then clips each branch; a
            ClipX0 around ClassifierFree clips their combination.
        y: One class or (B,); bound here, not by model.given. None for a model that is guided by further arrays only.
        scale: s, a number or (B,). At s > 1 neither the flow nor ancestral sampling ends in p(x)·p(y|x)^s (see this
            module's text).

    Raises:
        IncompatibleModel: Where nothing can be dropped: the network has no row for dropped labels, and no bound array
            has a null. A network that does not describe itself (no `config`) is taken to know the label num_classes.
    """

    def __init__(self, model: Denoise, y: Labels | None, scale: Scale) -> None:
        super().__init__(as_gaussian(model, type(self).__name__))
        bound = [layer for layer in self.model.layers() if isinstance(layer, Given)]
        if y is not None and any(layer.labels is not None for layer in bound):
            raise IncompatibleModel(
                "ClassifierFree binds the labels itself: give it the model without .given(y)"
            )
        if self.model.guided:
            raise IncompatibleModel(
                "ClassifierFree takes an unguided model: apply the other guidance to its result"
            )
        null = self.model.null_label
        if (y is not None and null is None) or (y is None and not any(layer.droppable for layer in bound)):
            raise IncompatibleModel(
                "classifier-free guidance needs an unconditional branch, which this model lacks: train a conditional "
                "model with label_dropout=0.1, or use classifier guidance"
            )
        self.null = null
        self.labels = None if y is None else as_labels(y, null or 0, class_names(self.model))
        self.scale = _as_scale(scale)

    def options_shown(self) -> list[str]:
        y = [] if self.labels is None else [f"y={shown(self.labels)}"]
        return [*y, f"scale={shown(self.scale)}"]

    @property
    def num_classes(self) -> int:
        return 0

    @property
    def null_label(self) -> int | None:
        return None

    @property
    def guided(self) -> bool:
        return True

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        check_batch_of("x_t", x_t)
        both = self.model.branches(len(x_t), self._both_labels(x_t))
        pred = both(torch.cat([x_t, x_t]), _twice(t))
        scale = expand(per_example(self.scale, x_t, "scales"), x_t)
        x0, raw = (torch.lerp(value[: len(x_t)], value[len(x_t) :], scale) for value in (pred.x0, pred.raw))
        return replace(
            pred,
            x_t=x_t,
            level=Level(*map(_second, pred.level)),
            x0=x0,
            raw=raw,
            below=None if pred.below is None else Level(*map(_second, pred.below)),
            var_frac=None if pred.var_frac is None else _second(pred.var_frac),
            log_var=None if pred.log_var is None else _second(pred.log_var),
        )

    def _both_labels(self, x_t: Tensor) -> Tensor | None:
        """The null label B times and then the labels, (2B,)."""
        if self.labels is None or self.null is None:
            return None
        labels = per_example(self.labels, x_t, "labels")
        return torch.cat([torch.full_like(labels, self.null), labels])


def _check_levels(mine: GaussianProcess, its: object) -> None:
    """IncompatibleModel where a classifier's process has other levels than the model's."""
    if not isinstance(its, GaussianProcess) or its is mine:
        return
    if float(its.T) != float(mine.T):
        raise IncompatibleModel(f"the classifier has T = {its.T}, but the model has T = {mine.T}: {_SAME}")
    discrete = mine.is_discrete or its.is_discrete
    times = (
        torch.arange(1, int(mine.T) + 1)
        if discrete
        else torch.linspace(0, mine.T, 101, dtype=torch.float64)[1:]
    )
    (alpha, sigma), (its_alpha, its_sigma) = mine.level(times), its.level(times)
    wrong = ((its_alpha / alpha - 1).abs() > _SAME_LEVEL) | ((its_sigma / sigma - 1).abs() > _SAME_LEVEL)
    if bool(wrong.any()):
        k = int(wrong.nonzero()[0])
        its_ratio, ratio = (float(s[k] / a[k]) for a, s in ((its_alpha, its_sigma), (alpha, sigma)))
        raise IncompatibleModel(
            f"the classifier has other noise levels: at t = {times[k]:g} its σ/α is "
            f"{its_ratio:.4g} (α {its_alpha[k]:.4g}), and the model's {ratio:.4g} (α {alpha[k]:.4g}): {_SAME}"
        )


_SAME = "train a classifier on the model's own process"


def _as_scale(scale: Scale) -> Tensor:
    """() or (B,) float64 on the CPU."""
    values = numbers("scale", scale)
    if values.ndim > 1 or not values.numel() or bool((values.abs() > LARGEST).any()):
        raise InputError(
            f"scale is a finite number up to {LARGEST:g}, or one for each example; got {brief(scale)}"
        )
    return values


def _checked(logits: object, x: Tensor) -> Tensor:
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[0] != x.shape[0]:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else brief(logits)
        raise InputError(f"a classifier returns logits of shape (B, K), here ({x.shape[0]}, K); got {got}")
    if not logits.requires_grad:
        raise InputError("the classifier's logits do not depend on x_t, or not by differentiable operations")
    return logits


def _twice(t: Time) -> Time:
    return torch.cat([t, t]) if isinstance(t, Tensor) and t.ndim else t


def _second(value: Tensor) -> Tensor:
    """The conditional half of what belongs to 2B examples; what belongs to all of them as it is."""
    return value if value.ndim == 0 else value.chunk(2)[1]
