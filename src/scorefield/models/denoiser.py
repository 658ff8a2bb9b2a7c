"""The models that samplers and objectives see: process, parametrization and network joined into x̂0 at (x_t,
t).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Self

import torch
from torch import Tensor

from scorefield.core.prediction import Prediction
from scorefield.core.shapes import DataSpec, check_batch_of, expand
from scorefield.data.transforms import reduced
from scorefield.models.base import ConditionalModel, GaussianModel, Labels
from scorefield.models.network import ModelSettings
from scorefield.models.network_model import ModelBase, need_classes
from scorefield.models.parametrization import (
    Affine,
    coefficients,
    describe_gaussian,
    noise_at_T,
    noise_input,
)
from scorefield.models.wrappers import Given
from scorefield.process.base import GaussianProcess, Process, Time
from scorefield.runtime.checks import LARGEST, brief, number, one_of, positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.registry import NOISE_INPUTS, PARAMETRIZATIONS

__all__ = ["Denoiser"]

_LARGEST_SIDE = 2**16
VARIANCE_HEADS = (None, "range", "direct")


class Denoiser(ModelBase, ConditionalModel):
    """x̂0 = c_skip·x_t + c_out·F(c_in·x_t, c, y) for a network F(x, c, y=None, **arrays).

    Args:
        net: Any callable with that signature. The further arrays that its forward names, such as `mask` or
            `low_res`, are its conditioning: training takes them from the data, `given` binds them for sampling. With
            a variance head it gives twice the channels, the second half for Σ.
        process: Whose levels it was made for.
        parametrization: What F means: "eps", "x0", "v", "score", "mean", "edm" or "flow".
        variance: None, "range" (ln Σ interpolated between ln β̃ and ln β by (F_v + 1)/2, Improved DDPM Eq. 15) or
            "direct" (F_v = ln Σ).
        noise_input: What the network receives as c: "index", "scaled", "rank" or "log_sigma".
        data: What one example is; needed to sample without an x_T.
        sigma_data: Standard deviation of the data, of "edm" only.
        low_res: Side in pixels of the images that a super-resolution model upsamples, F(x, c, y, low_res=); training
            makes them of the data.  [ADM Sec. 5]

    Raises:
        InputError: For options that do not exist, and for a low_res that does not fit the data.
        IncompatibleModel: For options that have no meaning on this process.
    """

    summary = "which predicts x̂0 at levels of Gaussian noise"
    objectives = "Simple, Hybrid, VLB or NCSN"
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
        number("sigma_data, a standard deviation,", sigma_data, at_least=1 / LARGEST, at_most=LARGEST)
        if not isinstance(process, GaussianProcess):
            raise InputError(
                f"process must be a Gaussian process such as sf.process.cosine(1000), got {brief(process)}"
            )
        if not isinstance(process.T, int) and (parametrization == "mean" or variance == "direct"):
            raise IncompatibleModel(
                'parametrization "mean" and variance "direct" describe a step between neighbouring levels, and a continuous process '
                'has no neighbours: use "eps", "x0" or "v", and variance "range" or None'
            )
        _check_low_res(low_res, data)
        if process.is_discrete and process.ends_in_noise:
            _check_without_signal(parametrization, noise_input)
        self.process = process
        self.parametrization = parametrization
        self.variance = variance
        self.noise_input = noise_input
        self.sigma_data = sigma_data
        self.low_res = low_res

    @classmethod
    def takes(cls, process: Process | None) -> bool:
        return isinstance(process, GaussianProcess)

    @classmethod
    def build(
        cls,
        process: Process | None,
        data: DataSpec,
        settings: ModelSettings,
        make_net: Callable[[], Callable[..., Tensor]],
    ) -> Self:
        if not isinstance(process, GaussianProcess):
            what = "a super-resolution model" if settings.low_res is not None else "this objective's model"
            raise InputError(
                f"{what} predicts x̂0 at levels of Gaussian noise: give the recipe such a [process], or another objective"
            )
        need_classes(data, settings)
        if isinstance(settings.sigma_data, str):
            raise InputError(
                'model.sigma_data="data" is estimated from the examples when training starts: to build a model without them '
                "give a number",
                command="--set model.sigma_data=0.5",
            )
        return cls(
            make_net(),
            process,
            settings.parametrization,
            settings.variance,
            settings.noise_input,
            data,
            settings.sigma_data,
            settings.low_res,
        )

    @classmethod
    def channels(cls, process: Process | None, settings: ModelSettings) -> tuple[int, int]:
        return 1, 1 if settings.variance is None else 2

    def noise_at_T(self) -> tuple[float, torch.dtype] | None:
        return noise_at_T(self.noise_input, self.process)

    def describe_levels(self) -> str:
        return describe_gaussian(self.process)

    def describe_output(self) -> str:
        side = self.low_res
        upsamples = f"upsamples images of {side}×{side}, " if side is not None else ""
        return f"{upsamples}predicts {self.parametrization}, noise input {self.noise_input}"

    @property
    def config(self) -> dict[str, object]:
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
        """How many classes the network takes labels of; 0 for an unconditional one. One that does not describe itself
        (it has no `config`) is taken to know those of the data.
        """
        classes, of_data = self.network.num_classes, 0 if self.data is None else self.data.num_classes
        return of_data if classes is None else classes

    @property
    def null_label(self) -> int | None:
        """The label that stands for none, num_classes, where the network has a row for it; otherwise None.

        A network that does not describe itself (it has no `config`) is taken to have one if its data has
        classes.
        """
        return self.num_classes if self.num_classes and self.network.null_label is not False else None

    @property
    def arrays(self) -> frozenset[str]:
        return self.network.arrays | self.missing

    @property
    def missing(self) -> frozenset[str]:
        return self.network.required | ({"low_res"} if self.low_res is not None else set())

    @property
    def keeps_to_levels(self) -> str | None:
        if self.parametrization == "mean":
            return 'parametrization="mean"'
        return 'noise_input="rank"' if self.noise_input == "rank" else None

    def forward(self, x_t: Tensor, t: Time, y: Tensor | None = None, **arrays: Tensor) -> Prediction:
        """The prediction of the network at x_t.

        Args:
            x_t: (B, *) floating point; the network receives it in its own dtype, and the prediction has that of x_t.
            t: A number or (B,), 0 < t ≤ T.
            y: Labels (B,) int64, or None.
            arrays: Further inputs of the network by name, (B, *).

        Raises:
            InputError: At t = 0, for an x_t, labels or arrays that do not fit, and where the network's output has another
                shape than the model needs.
        """
        check_batch_of("x_t", x_t)
        time = self.process.positive_time(t)
        c = self.coefficients(time)
        raw = self._network(expand(c.inp, x_t) * x_t, time, y, arrays)
        raw, head = self._split(raw, x_t)
        x0 = expand(c.skip, x_t) * x_t + expand(c.out, x_t) * raw
        level = self.process.level(time)
        if head is None:
            return Prediction(x_t, level, x0, raw)
        if self.variance == "range":
            return Prediction(x_t, level, x0, raw, var_frac=(head + 1) / 2)
        return Prediction(
            x_t, level, x0, raw, log_var=head, below=self.process.level((time - 1).clamp_min(0))
        )

    def coefficients(self, t: Tensor) -> Affine:
        """(c_skip, c_out, c_in) at t, float64 on the CPU.

        Args:
            t: Times, () or (B,), 0 < t ≤ T.
        """
        return coefficients(self.parametrization, self.process, t, self.sigma_data)

    def given(self, y: Labels | None = None, **arrays: Tensor) -> GaussianModel:
        """This model with conditioning bound, so that samplers never see it.

        Args:
            y: One class for every example, or (B,) of them, by number or by name. Default: labels stay unbound.
            arrays: Further inputs of the network by name, (B, *), or (1, *) for every example; of a super-resolution
                model `low_res`, the images (B, C, h, w) in the data's range that it upsamples.  [ADM Sec. 5]

        Raises:
            InputError: For labels that it does not know, and for arrays that it does not take or of a wrong shape.
        """
        return self if y is None and not arrays else Given(self, y, arrays)

    def branches(self, batch: int, labels: Tensor | None) -> GaussianModel:
        return Given(self).branches(batch, labels)

    def unconditional(self) -> GaussianModel:
        return Given(self).unconditional()

    def conditioning(self, x0: Tensor, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        found = super().conditioning(x0, arrays)
        return found if self.low_res is None else {**found, "low_res": reduced(x0, self.low_res)}

    def check_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        super().check_arrays(arrays)
        low_res = arrays.get("low_res")
        if low_res is None:
            return
        sides = set(low_res.shape[2:])
        if low_res.ndim != 4 or (self.low_res is not None and sides != {self.low_res}):
            size = "" if self.low_res is None else f" of {self.low_res}×{self.low_res} pixels"
            raise InputError(
                f"this model upsamples images{size}, low_res (B, C, h, w); got shape {tuple(low_res.shape)}"
            )

    def refuse_missing(self, bound: Collection[str] = ()) -> None:
        if self.low_res is not None and "low_res" not in bound:
            side = self.low_res
            raise InputError(
                f"this model upsamples images of {side}×{side} pixels: give these as low_res, (M, C, {side}, {side})"
            )
        super().refuse_missing(bound)

    def _network(self, x: Tensor, time: Tensor, y: Tensor | None, arrays: Mapping[str, Tensor]) -> Tensor:
        dtype = torch.float64 if x.dtype == torch.float64 else self.dtype or x.dtype
        c = noise_input(self.noise_input, self.process, time, dtype).to(x.device)
        if c.ndim and len(c) != len(x):
            raise InputError(
                f"{len(c)} times were given for {len(x)} examples: give one for each, or one for all"
            )
        raw = self.run_network(x, c.expand(x.shape[0]), **self.conditioned(x, y, arrays))
        if not isinstance(raw, Tensor):
            raise InputError(f"the network returned {brief(raw)}, and a tensor is expected")
        return raw.to(x.dtype)

    def _split(self, raw: Tensor, x_t: Tensor) -> tuple[Tensor, Tensor | None]:
        """(F, variance half or None); InputError when the network's output has another shape than the model needs."""
        heads = 1 if self.variance is None else 2
        if heads == 2 and x_t.ndim < 2:
            raise InputError("a variance head is a second half of the channels: give scalars as (B, 1)")
        expected = tuple(x_t.shape)
        if heads == 2:
            expected = (x_t.shape[0], 2 * x_t.shape[1], *x_t.shape[2:])
        if tuple(raw.shape) != expected:
            why = "twice the channels, for its variance head" if heads == 2 else "the shape of x_t"
            raise InputError(
                f"the network returned shape {tuple(raw.shape)}, but this model needs {expected}: {why}"
            )
        return (raw, None) if heads == 1 else (raw[:, : x_t.shape[1]], raw[:, x_t.shape[1] :])


def _check_without_signal(parametrization: str, noise_input: str) -> None:
    """IncompatibleModel for what has no meaning at a last level of pure noise, at which every training of a table asks."""
    wrong = (
        'noise_input="log_sigma"' if noise_input == "log_sigma" else f'parametrization="{parametrization}"'
    )
    if parametrization in ("eps", "score") or noise_input == "log_sigma":
        raise IncompatibleModel(
            f"{wrong} divides by α, which is 0 at the last level of this process: pure noise tells nothing of x_0. Use "
            'parametrization "v", "x0" or "flow" and noise_input "index" or "scaled"'
        )


def _check_low_res(side: int | None, data: DataSpec | None) -> None:
    """InputError unless square images of `data` have smaller ones of this side."""
    if side is None:
        return
    positive_int("low_res, the side of the small images in pixels,", side, at_most=_LARGEST_SIDE)
    if data is not None and not (len(data.shape) == 3 and side < data.shape[1] == data.shape[2]):
        raise InputError(
            f"low_res = {side} is the side of the low-resolution images, so the data must be square and larger; "
            f"an example has shape {tuple(data.shape)}"
        )
