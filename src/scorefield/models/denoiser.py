"""The models that samplers and objectives see: process, parametrization and network joined into x̂0 at (x_t,
t).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.core.prediction import Prediction
from scorefield.core.shapes import DataSpec, expand, shown
from scorefield.models.base import (
    ConditionalModel,
    Denoise,
    GaussianModel,
    Labels,
    Model,
    ModelBase,
    as_gaussian,
)
from scorefield.models.parametrization import (
    Affine,
    coefficients,
    noise_input,
)
from scorefield.process.base import GaussianProcess, Time
from scorefield.runtime.checks import one_of, positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.registry import NOISE_INPUTS, PARAMETRIZATIONS

__all__ = ["Denoiser", "Given", "Wrapper", "as_labels", "per_example"]

VARIANCE_HEADS = (None, "range", "direct")


class Denoiser(ModelBase, ConditionalModel):
    """x̂0 = c_skip·x_t + c_out·F(c_in·x_t, c, y) for a network F(x, c, y=None).

    net: any callable with that signature; with a variance head it gives twice the channels, the second half
    for Σ.
    process: whose levels it was made for.   parametrization: what F means, "eps", "x0", "v", "score", "mean",
    "edm".
    variance: None, "range" (ln Σ interpolated between ln β̃ and ln β by (F_v + 1)/2, Improved DDPM Eq. 15) or
    "direct" (F_v = ln Σ).   noise_input: what the network receives as c, "index", "scaled", "rank",
    "log_sigma".
    data: what one example is; needed to sample without an x_T.   sigma_data: of "edm" only.
    low_res: of a model that enlarges images, F(x, c, y, low_res=), the side of the small ones in pixels; see
    `enlarging`.
    """

    variance: str | None = None
    low_res: int | None = None

    def __init__(
        self,
        net: Callable[..., Tensor],
        process: GaussianProcess,
        parametrization: str = "eps",
        variance: str | None = None,
        noise_input: str = "index",
        data: DataSpec | None = None,
        sigma_data: float = 0.5,
        low_res: int | None = None,
    ) -> None:
        super().__init__(net, data)
        one_of("parametrization", parametrization, PARAMETRIZATIONS)
        one_of("noise_input", noise_input, NOISE_INPUTS)
        one_of("variance", variance, VARIANCE_HEADS)
        if not sigma_data > 0:
            raise InputError(f"sigma_data is a standard deviation and must be positive, got {sigma_data!r}")
        if not isinstance(process, GaussianProcess):
            raise InputError(
                f"process must be a Gaussian process such as sf.process.cosine(1000), got {type(process).__name__}"
            )
        if not isinstance(process.T, int) and (parametrization == "mean" or variance == "direct"):
            raise IncompatibleModel(
                'parametrization "mean" and variance "direct" describe a step between neighbouring levels, and a continuous process '
                'has no neighbours: use "eps", "x0" or "v", and variance "range" or None'
            )
        _check_low_res(low_res, data)
        self.process = process
        self.parametrization = parametrization
        self.variance = variance
        self.noise_input = noise_input
        self.sigma_data = sigma_data
        self.low_res = low_res

    @property
    def config(self) -> dict[str, Any]:
        """What rebuilds this model, apart from its network and process, from a configuration file."""
        spec = {
            "parametrization": self.parametrization,
            "noise_input": self.noise_input,
            "sigma_data": self.sigma_data,
        }
        optional = {"variance": self.variance, "low_res": self.low_res}
        return {**spec, **{name: value for name, value in optional.items() if value}}

    def extra_repr(self) -> str:
        """What is printed beside the network."""
        said = {"parametrization": self.parametrization, "process": self.process, "variance": self.variance}
        said |= {"low_res": self.low_res, "data": None if self.data is None else tuple(self.data.shape)}
        return ", ".join(f"{name}={value!r}" for name, value in said.items() if value is not None)

    @property
    def num_classes(self) -> int:
        """How many classes the network takes labels of; 0 for an unconditional one."""
        spec = getattr(self.net, "config", None)
        if spec is None:
            return self.data.num_classes if self.data is not None else 0
        return int(spec.get("num_classes", 0))

    @property
    def null_label(self) -> int | None:
        """The label that stands for none, num_classes, where the network has a row for it; otherwise None.

        A network that does not describe itself (it has no `config`) is taken to have one if its data has
        classes.
        """
        spec = getattr(self.net, "config", {"null_label": True})
        return self.num_classes if self.num_classes and spec.get("null_label", False) else None

    def forward(self, x_t: Tensor, t: Time, y: Tensor | None = None) -> Prediction:
        """x_t: (B, *) floating point; t: a number or (B,), 0 < t ≤ T; y: (B,) int64 labels or None."""
        time = self.process.positive_time(t)
        c = self.coefficients(time)
        raw = self._network(expand(c.inp, x_t) * x_t, time, y)
        raw, head = self._split(raw, x_t)
        x0 = expand(c.skip, x_t) * x_t + expand(c.out, x_t) * raw
        level = self.process.level(time)
        if self.variance == "range":
            return Prediction(x_t, level, x0, raw, var_frac=(head + 1) / 2)
        if self.variance == "direct":
            return Prediction(
                x_t, level, x0, raw, log_var=head, below=self.process.level((time - 1).clamp_min(0))
            )
        return Prediction(x_t, level, x0, raw)

    def coefficients(self, t: Tensor) -> Affine:
        """(c_skip, c_out, c_in) at t, float64 on the CPU."""
        return coefficients(self.parametrization, self.process, t, self.sigma_data)

    @property
    def keeps_to_levels(self) -> str | None:
        if self.parametrization == "mean":
            return 'parametrization="mean"'
        return 'noise_input="rank"' if self.noise_input == "rank" else None

    def given(self, y: Labels | None = None) -> GaussianModel:
        return self if y is None else Given(self, y)

    def enlarging(self, low_res: Tensor) -> Denoiser:
        """This model with the images that it is to enlarge bound, (B, C, h, w) in the data's range.  [ADM
        Sec. 5]

        For networks with a `low_res` input. The result is a Denoiser for these B examples, and for a batch of
        them repeated. InputError for what is no batch of images, or has another side than the model's
        `low_res`, where it says one.
        """
        side = self.low_res
        if (
            low_res.ndim != 4
            or not len(low_res)
            or side not in (None, low_res.shape[2])
            or side not in (None, low_res.shape[3])
        ):
            size = "" if side is None else f" of {side}×{side} pixels"
            raise InputError(
                f"this model enlarges images{size}, (B, C, h, w); got shape {tuple(low_res.shape)}"
            )
        options = (self.parametrization, self.variance, self.noise_input, self.data, self.sigma_data)
        bound = Denoiser(_Enlarging(self.net, low_res), self.process, *options)
        bound.autocast_dtype = self.autocast_dtype
        return bound

    def _network(self, x: Tensor, time: Tensor, y: Tensor | None) -> Tensor:
        c = noise_input(self.noise_input, self.process, time, x.dtype).to(x.device).expand(x.shape[0])
        labels = {} if y is None else {"y": y}
        return self.run_network(x, c, **labels).to(x.dtype)

    def _split(self, raw: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor]:
        """(F, variance half); InputError when the network's output has another shape than the model needs."""
        heads = 1 if self.variance is None else 2
        expected = (x_t.shape[0], heads * x_t.shape[1], *x_t.shape[2:])
        if tuple(raw.shape) != expected:
            why = "twice the channels, for its variance head" if heads == 2 else "the shape of x_t"
            raise InputError(
                f"the network returned shape {tuple(raw.shape)}, but this model needs {expected}: {why}"
            )
        return raw[:, : x_t.shape[1]], raw[:, x_t.shape[1] :]


class _Enlarging(nn.Module):
    """A network with its low_res input bound."""

    def __init__(self, net: Callable[..., Tensor], low_res: Tensor) -> None:
        super().__init__()
        self.net, self.low_res = net, low_res
        if hasattr(net, "config"):
            self.config = net.config

    def forward(self, x: Tensor, c: Tensor, **labels: Tensor) -> Tensor:
        low_res = self.low_res.to(x)
        times, rest = divmod(len(x), len(low_res))
        if times > 1 and not rest:  # classifier-free guidance evaluates its two branches as one batch
            low_res = low_res.repeat(times, 1, 1, 1)
        return self.net(x, c, low_res=low_res, **labels)


class Wrapper(GaussianModel):
    """A Denoise around another one: whatever it does not change, it passes through."""

    def __init__(self, model: Denoise) -> None:
        self.model: GaussianModel = as_gaussian(model, type(self).__name__)
        self.process = self.model.process
        self.data = self.model.data

    def __repr__(self) -> str:
        inside = repr(self.model) if isinstance(self.model, Wrapper) else self.model.kind
        return f"{type(self).__name__}({', '.join([inside, *self.options_shown()])})"

    def options_shown(self) -> list[str]:
        """What its repr shows beside the model inside, such as "scale=2"."""
        return []

    @property
    def inner(self) -> Model | None:
        return self.model

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def null_label(self) -> int | None:
        return self.model.null_label

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        return self.model.autocast_dtype

    @property
    def is_compiled(self) -> bool:
        return self.model.is_compiled

    @property
    def guided(self) -> bool:
        """Whether this or a wrapper inside it guides."""
        return self.model.guided

    @property
    def grad_at(self) -> str | None:
        return self.model.grad_at

    @property
    def clips(self) -> bool:
        return self.model.clips

    @property
    def variance(self) -> str | None:
        return self.model.variance

    @property
    def low_res(self) -> int | None:
        return self.model.low_res

    @property
    def keeps_to_levels(self) -> str | None:
        return self.model.keeps_to_levels

    def run_in(self, dtype: torch.dtype | None) -> None:
        self.model.run_in(dtype)

    def given(self, y: Labels | None = None) -> GaussianModel:
        """The same wrapper around the model with its labels bound."""
        bound = copy.copy(self)
        bound.model = self.model.given(y)
        return bound

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        return self.model(x_t, t)


class Given(Wrapper):
    """A class-conditional model at given labels: samplers never see labels.   null: a further label that is
    allowed.
    """

    model: ConditionalModel

    def __init__(self, model: ConditionalModel, y: Labels, null: int | None = None) -> None:
        super().__init__(model)
        self.labels = as_labels(y, model.num_classes, null)

    def options_shown(self) -> list[str]:
        return [f"y={shown(self.labels)}"]

    @property
    def num_classes(self) -> int:
        return 0

    @property
    def null_label(self) -> int | None:
        return None

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        pred: Prediction = self.model(x_t, t, per_example(self.labels, x_t, "labels").to(x_t.device))
        return pred


def as_labels(y: Labels, classes: int, null: int | None = None) -> Tensor:
    """y as int64, () or (B,). InputError unless all lie in 0 … classes − 1 (any if classes is 0) or are the
    null label.
    """
    labels = torch.as_tensor(y)
    if labels.ndim > 1 or labels.dtype == torch.bool or labels.is_floating_point():
        raise InputError(
            f"labels are one class or a list of them, one an example; got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    labels = labels.long()
    known = (labels >= 0) & (labels < classes)
    if classes and not bool((known if null is None else known | (labels == null)).all()):
        raise InputError(f"labels must lie in 0 … {classes - 1}, got {labels.tolist()}")
    return labels


def _check_low_res(side: int | None, data: DataSpec | None) -> None:
    """InputError unless square images of `data` have smaller ones of this side."""
    if side is None:
        return
    positive_int("low_res, the side of the small images in pixels,", side)
    if data is not None and not (len(data.shape) == 3 and side < data.shape[1] == data.shape[2]):
        raise InputError(
            f"low_res = {side} is the side of images that are enlarged to the data's, which must be square and larger; an example "
            f"has shape {tuple(data.shape)}"
        )


def per_example(values: Tensor, x: Tensor, what: str) -> Tensor:
    """Values () or (B,), one for each example of x, as (B,). InputError where there are not B of them."""
    if values.ndim == 1 and len(values) != x.shape[0]:
        raise InputError(
            f"{len(values)} {what} are bound to this model, but the batch has {x.shape[0]} examples"
        )
    return values.expand(x.shape[0])
