"""The noisy classifier: process and network joined into p(y | x_t) at every level, what classifier guidance
asks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec, check_batch_of
from scorefield.models.base import ClassifierModel
from scorefield.models.network import ModelSettings, NetworkFacts, NetworkInputs
from scorefield.models.network_model import ModelBase
from scorefield.models.parametrization import describe_gaussian, noise_at_T, noise_input
from scorefield.process.base import GaussianProcess, Process, Time
from scorefield.runtime.checks import brief, one_of
from scorefield.runtime.errors import InputError
from scorefield.runtime.registry import NOISE_INPUTS

__all__ = ["NoisyClassifier"]


class NoisyClassifier(ModelBase, ClassifierModel):
    """(x_t, t) -> logits of p(y | x_t): softmax(F(x_t, c)) for a network F(x, c).  [ADM Sec. 4]

    Args:
        net: Any callable that turns x (B, *) and c (B,) into logits (B, K), such as sf.nets.Classifier. It
            receives x_t as it is.
        process: Whose levels it was made for.
        noise_input: What the network receives as c, as in Denoiser: "index", "scaled", "rank" or "log_sigma".
        data: What one example is, and the names of its classes, in the order of the logits.
    """

    gives = "logits"
    summary = "(x_t, t) -> logits at levels of Gaussian noise"
    objectives = "Classify"
    process: GaussianProcess

    def __init__(
        self,
        net: Callable[..., Tensor],
        process: GaussianProcess,
        noise_input: str = "index",
        data: DataSpec | None = None,
    ) -> None:
        super().__init__(net, data)
        one_of("noise_input", noise_input, NOISE_INPUTS)
        if not isinstance(process, GaussianProcess):
            raise InputError(
                f"process must be a Gaussian process such as sf.process.cosine(1000), got {brief(process)}"
            )
        self.process = process
        self.noise_input = noise_input
        if data is not None and data.num_classes > self.num_classes:
            raise InputError(
                f"the network has {self.num_classes} classes, but the data has {data.num_classes}"
            )

    @property
    def config(self) -> dict[str, object]:
        """What rebuilds this classifier, apart from its network and process, from a configuration file."""
        return {"noise_input": self.noise_input}

    def extra_repr(self) -> str:
        """What is printed beside the network."""
        return f"process={self.process!r}, num_classes={self.num_classes}"

    @property
    def num_classes(self) -> int:
        """K: what the network says of itself, otherwise what the data has; 0 where neither does."""
        of_data = 0 if self.data is None else self.data.num_classes
        return self.network.num_classes or of_data

    @property
    def arrays(self) -> frozenset[str]:
        return frozenset()

    @property
    def keeps_to_levels(self) -> str | None:
        return 'noise_input="rank"' if self.noise_input == "rank" else None

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
            raise InputError(
                "a noisy classifier needs levels of Gaussian noise: give the recipe a Gaussian [process]"
            )
        if not data.classes:
            raise InputError(
                "this recipe trains a classifier, but the data has no labels: use a folder with a subfolder for each class, or an .npz "
                "with `labels`"
            )
        return cls(make_net(), process, settings.noise_input, data)

    @classmethod
    def network_sizes(
        cls, process: Process | None, data: DataSpec, settings: ModelSettings, accepts: Collection[str]
    ) -> dict[str, int | bool]:
        sizes = super().network_sizes(process, data, settings, accepts)
        # The num_classes of a network that gives numbers of any shape are labels that it receives.
        count = "out_dim" if "out_dim" in accepts else "num_classes"
        kept = {name: size for name, size in sizes.items() if name not in ("num_classes", "out_dim")}
        return {**kept, "low_res": False, "image_size": data.shape[-1], count: data.num_classes}

    @classmethod
    def check_network(cls, facts: NetworkFacts, settings: ModelSettings, name: str) -> None:
        """Nothing is asked of the network: it is conditioned on nothing.

        Args:
            facts: Not used.
            settings: Not used.
            name: Not used.
        """

    def network_inputs(self, batch: int) -> NetworkInputs:
        return replace(super().network_inputs(batch), labels=False)

    def noise_at_T(self) -> tuple[float, torch.dtype] | None:
        return noise_at_T(self.noise_input, self.process)

    def describe_levels(self) -> str:
        return describe_gaussian(self.process)

    def describe_output(self) -> str:
        return f"classifier with {self.num_classes} classes, noise input {self.noise_input}"

    def forward(self, x_t: Tensor, t: Time) -> Tensor:
        """Logits (B, K), float32 or the float64 of x_t.

        Args:
            x_t: (B, *), floating-point.
            t: A number or (B,), 0 < t ≤ T.

        Raises:
            InputError: At t = 0, and where the network's output has another shape.
        """
        check_batch_of("x_t", x_t)
        time = self.process.positive_time(t)
        c = noise_input(self.noise_input, self.process, time, self.dtype or x_t.dtype).to(x_t.device)
        if c.ndim and len(c) != len(x_t):
            raise InputError(
                f"{len(c)} times were given for {len(x_t)} examples: give one for each, or one for all"
            )
        c = c.expand(x_t.shape[0])
        logits = self.run_network(x_t, c)
        self._check(logits, x_t)
        return logits.to(torch.promote_types(x_t.dtype, torch.float32))

    def _check(self, logits: Tensor, x_t: Tensor) -> None:
        batch, classes = x_t.shape[0], self.num_classes
        if not isinstance(logits, Tensor):
            raise InputError(f"the network returned {brief(logits)}, and logits ({batch}, K) are expected")
        if logits.ndim != 2 or logits.shape[0] != batch or logits.shape[1] != (classes or logits.shape[1]):
            raise InputError(
                f"the network returned shape {tuple(logits.shape)}, and one logit a class is expected ({batch}, {classes or 'K'})"
            )
