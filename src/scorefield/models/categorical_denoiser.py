"""The model of categories: process and network joined into p(x_0 | x_t) at every level. It has no α, no σ and
no score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from scorefield.core.distributions import Categorical
from scorefield.core.shapes import DataSpec, shown
from scorefield.models.base import CategoricalModel, ConditionalCategories, Labels
from scorefield.models.network import ModelSettings, NetworkInputs
from scorefield.models.network_model import ModelBase, need_classes
from scorefield.models.parametrization import noise_at_T, noise_input
from scorefield.models.wrappers import GivenCategories
from scorefield.process.base import Process, Time
from scorefield.process.categorical import CategoricalProcess, check_categories, check_category_batch
from scorefield.runtime.checks import brief, one_of
from scorefield.runtime.errors import InputError

__all__ = ["CategoricalDenoiser"]

NOISE_INPUTS = ("index", "scaled", "rank")  # the others ask for σ/α
PARAMETRIZATIONS = ("x0", "bayes")


class CategoricalDenoiser(ModelBase, ConditionalCategories):
    """p(x_0 = k | x_t) from a network's logits F(x_t, c, y), every dimension by itself.  [D3PM §3.3]

    Args:
        net: Called net(x, c, y=None) with x the one-hot x_t, floats (B, S·C, *), channel k·C + c the k-th
            state of channel c; it returns logits (B, K·C, *) in the same order.
        process: One of categories, such as sf.process.uniform_categories or absorbed_categories make.
        parametrization: "x0", p ∝ exp(F); or "bayes", p ∝ q(x_t | x_0 = k)·exp(F), where F is what is known
            of a value without its own x_t, as in D3PM Eq. 4. In both an x_0 that cannot have led to x_t has
            probability 0.
        noise_input: What the network receives as c: "index" t − 1, "scaled" 1000(t − 1)/T, "rank" T − t.
        data: What one example is, with as many bins as the process has classes; needed to read data in
            `range` and to sample without an x_T.
    """

    summary = "which predicts categories"
    objectives = "CategoricalVLB"

    def __init__(
        self,
        net: Callable[..., Tensor],
        process: CategoricalProcess,
        parametrization: str = "x0",
        noise_input: str = "index",
        data: DataSpec | None = None,
    ) -> None:
        super().__init__(net, data)
        one_of("parametrization of categories", parametrization, PARAMETRIZATIONS)
        one_of("noise_input of categories", noise_input, NOISE_INPUTS)
        if not isinstance(process, CategoricalProcess):
            raise InputError(
                "process must be one of categories, such as sf.process.uniform_categorical(sf.process.cosine_kappas(100), classes=17); "
                f"got {brief(process)}: models of Gaussian noise are sf.Denoiser"
            )
        self.process = process
        self.parametrization = parametrization
        self.noise_input = noise_input
        if data is not None:
            self._check_bins(data)

    def extra_repr(self) -> str:
        """What is printed beside the network."""
        return f"parametrization={self.parametrization!r}, process={self.process!r}"

    @classmethod
    def takes(cls, process: Process | None) -> bool:
        return isinstance(process, CategoricalProcess)

    @classmethod
    def build(
        cls,
        process: Process | None,
        data: DataSpec,
        settings: ModelSettings,
        make_net: Callable[[], Callable[..., Tensor]],
    ) -> Self:
        if not isinstance(process, CategoricalProcess):
            raise InputError(
                "this objective trains a model of categories: give the recipe a [process] of them, or another objective"
            )
        if settings.low_res is not None:
            raise InputError(
                "a super-resolution model predicts x̂0 at levels of Gaussian noise: remove model.low_res, or give one [process]"
            )
        if settings.variance is not None:
            raise InputError("a categorical model has no variance: remove model.variance")
        need_classes(data, settings)
        return cls(make_net(), process, settings.parametrization, settings.noise_input, data)

    @classmethod
    def channels(cls, process: Process | None, settings: ModelSettings) -> tuple[int, int]:
        """One-hot in, a logit for each category out.

        Args:
            process: What the recipe's [process] describes.
            settings: Not used.

        Returns:
            (S, K); (1, 1) for a process that is not of categories.
        """
        return (process.states, process.classes) if isinstance(process, CategoricalProcess) else (1, 1)

    def network_inputs(self, batch: int) -> NetworkInputs:
        inputs = super().network_inputs(batch)
        size, channels, *rest = inputs.x
        return replace(inputs, x=(size, self.process.states * channels, *rest))

    def noise_at_T(self) -> tuple[float, torch.dtype] | None:
        return noise_at_T(self.noise_input, self.process)

    def describe_levels(self) -> str:
        process = self.process
        first, last = (float(process.level(t)) for t in (1, process.T))
        return f"{process.T}, values kept from {first:.3g} to {last:.3g} ({process.config['kind']})"

    def describe_output(self) -> str:
        what = f"predicts which of {self.process.classes} categories each value is"
        return f"{what}, parametrization {self.parametrization}, noise input {self.noise_input}"

    @property
    def config(self) -> dict[str, object]:
        """What rebuilds this model, apart from its network and process, from a configuration file."""
        return {"parametrization": self.parametrization, "noise_input": self.noise_input}

    @property
    def num_classes(self) -> int:
        """How many labels the network takes; 0 for an unconditional one. (The categories of a value are
        `process.classes`.)
        """
        return self.network.num_classes or 0

    @property
    def null_label(self) -> int | None:
        """The label that stands for none, num_classes, where the network has a row for it; otherwise None."""
        return self.num_classes if self.network.null_label else None

    def forward(self, x_t: Tensor, t: Time, y: Tensor | None = None, **arrays: Tensor) -> Categorical:
        """p(x_0 | x_t), (B, K, *), float32 or the network's float64.

        Args:
            x_t: (B, *) integers.
            t: A number or (B,), 0 < t ≤ T.
            y: Labels (B,) int64, or None.
            arrays: Further inputs of the network by name, (B, *).

        Raises:
            InputError: At t = 0, where x_t is the data; for another output of the network; for an x_t that no x_0
                leads to at t.
        """
        check_category_batch(x_t, self.process.states, "x_t")
        if x_t.ndim < 2:
            raise InputError("x_t must be (B, C, *): give one category an example as (B, 1)")
        time = self.process.positive_time(t)
        logits = self._network(x_t, time, y, arrays)
        log_likelihood = self.process.log_likelihood(x_t, time, 0, logits.dtype)[:, : self.process.classes]
        possible = self.process.possible(log_likelihood)
        # Read together, because the host waits here.
        reachable, finite = torch.stack([possible.any(dim=1).all(), logits.isfinite().all()]).tolist()
        if not finite:
            raise InputError(
                f"the network's logits are not finite at t = {shown(time)}: the model has diverged, or its weights are damaged"
            )
        if not reachable:
            raise InputError(
                "x_t is impossible at this t: an absorbing process has erased every value at t = T"
            )
        if self.parametrization == "bayes":
            return Categorical.of(logits + log_likelihood)
        return Categorical.of(torch.where(possible, logits, log_likelihood))

    def categories(self, x0: Tensor) -> Tensor:
        """Data as categories, int64 (B, *).

        Args:
            x0: Values in the data's range that lie on its bins, or the integers themselves, (B, *).

        Raises:
            InputError: For values between bins, and for floats where the model does not know its data.
        """
        if not isinstance(x0, Tensor) or not x0.is_floating_point():
            check_categories(x0, self.process.classes, "x0")
            return x0.long()
        if self.data is None:
            raise InputError(
                "the categories of these values are not known: give integers, or build the model with "
                "data=sf.DataSpec(..., bins=K)"
            )
        self._check_bins(self.data)
        return self.data.exact_bins(x0)

    def given(self, y: Labels | None = None, **arrays: Tensor) -> CategoricalModel:
        return self if y is None and not arrays else GivenCategories(self, y, arrays)

    def _network(self, x_t: Tensor, time: Tensor, y: Tensor | None, arrays: Mapping[str, Tensor]) -> Tensor:
        """Its logits (B, K, *)."""
        process, dtype = self.process, self.dtype or torch.get_default_dtype()
        x = one_hot(x_t, process.states).movedim(-1, 1).flatten(1, 2).to(dtype)
        c = noise_input(self.noise_input, process, time, dtype).to(x_t.device)
        if c.ndim and len(c) != len(x_t):
            raise InputError(
                f"{len(c)} times were given for {len(x_t)} examples: give one for each, or one for all"
            )
        c = c.expand(x_t.shape[0])
        raw = self.run_network(x, c, **self.conditioned(x_t, y, arrays))
        if not isinstance(raw, Tensor):
            raise InputError(f"the network returned {brief(raw)}, and a tensor is expected")
        expected = (x_t.shape[0], process.classes * x_t.shape[1], *x_t.shape[2:])
        if tuple(raw.shape) != expected:
            raise InputError(
                f"the network returned shape {tuple(raw.shape)}, but this model needs {expected}: a logit for each of "
                f"{process.classes} categories of each value"
            )
        return raw.reshape(x_t.shape[0], process.classes, *x_t.shape[1:]).to(
            torch.promote_types(raw.dtype, torch.float32)
        )

    def _check_bins(self, data: DataSpec) -> None:
        if data.bins != self.process.classes:
            raise InputError(
                f"the process has {self.process.classes} categories but the data has {data.bins or 'no'} levels: make "
                "classes of the process equal to bins of the DataSpec"
            )
