"""Scores without noise levels: what explicit, implicit and sliced score matching on clean data train."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Self

from torch import Tensor

from scorefield.core.derivatives import score_from_energy
from scorefield.core.shapes import DataSpec, check_batch_of
from scorefield.models.base import LogDensity
from scorefield.models.network import ModelSettings, NetworkInputs
from scorefield.models.network_model import ModelBase, need_classes
from scorefield.process.base import Process, Time
from scorefield.runtime.checks import brief, flag
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = ["ScoreModel"]


class ScoreModel(ModelBase):
    """s(x) = F(x), or s(x) = −∇E(x) with the energy E = F: a score of one density, with no levels and no x̂0.

    It satisfies `ScoreFunction` only: Langevin samples it, every other sampler refuses it.

    Args:
        net: Called `net(x, None)`, the signature net(x, c, y=None) of every network without a noise value,
            so that `sf.nets.MLP(dim, noise_levels=False)` fits.
        data: What one example is.
        energy: Whether the network returns an energy, (B,) or (B, 1), of the density p ∝ exp(−E); the score
            is then curl-free.
    """

    summary = "a score without noise levels"
    objectives = "ScoreMatching"
    has_energy: bool = False

    def __init__(
        self, net: Callable[..., Tensor], data: DataSpec | None = None, energy: bool = False
    ) -> None:
        super().__init__(net, data)
        self.has_energy = flag("energy", energy)

    @property
    def config(self) -> dict[str, object]:
        """What rebuilds this model, apart from its network, from a configuration file."""
        return {"energy": self.has_energy}

    @classmethod
    def takes(cls, process: Process | None) -> bool:
        return process is None

    @classmethod
    def build(
        cls,
        process: Process | None,
        data: DataSpec,
        settings: ModelSettings,
        make_net: Callable[[], Callable[..., Tensor]],
    ) -> Self:
        if settings.low_res is not None:
            raise InputError(
                "a super-resolution model predicts x̂0 at levels of Gaussian noise: remove model.low_res, or choose another objective"
            )
        need_classes(data, settings)
        return cls(make_net(), data, settings.energy)

    @classmethod
    def network_sizes(
        cls, process: Process | None, data: DataSpec, settings: ModelSettings, accepts: Collection[str]
    ) -> dict[str, int | bool]:
        sizes = super().network_sizes(process, data, settings, accepts)
        return {**sizes, "out_dim": 1} if settings.energy else sizes

    def network_inputs(self, batch: int) -> NetworkInputs:
        return replace(super().network_inputs(batch), labels=False)

    def describe_output(self) -> str:
        return "gives an energy" if self.has_energy else "gives the score"

    @property
    def arrays(self) -> frozenset[str]:
        return frozenset()

    @property
    def log_density(self) -> LogDensity | None:
        return (lambda x: -self.energy(x)) if self.has_energy else None

    def extra_repr(self) -> str:
        """What is printed beside the network."""
        return "energy=True" if self.has_energy else ""

    def score(self, x: Tensor, t: Time | None = None) -> Tensor:
        """∇ log p(x), (B, *) in x's dtype, differentiable where gradients are enabled.

        Args:
            x: (B, *).
            t: Must be None: this score has no levels.

        Raises:
            InputError: For a time t, and where the network's output has another shape than x (than (B,) for
                an energy).
        """
        if t is not None:
            raise InputError(
                f"this score has no noise levels, so it takes no time: call score(x); got t = {brief(t)}"
            )
        check_batch_of("x", x)
        if self.has_energy:
            return score_from_energy(self.energy)(x)
        s = self._network(x)
        if s.shape != x.shape:
            raise InputError(
                f"the network returned shape {tuple(s.shape)}, but a score has the shape of x, {tuple(x.shape)}; "
                "one that returns energies needs ScoreModel(net, energy=True)"
            )
        return s

    def energy(self, x: Tensor) -> Tensor:
        """E(x) = −ln p(x) up to a constant, (B,).

        Args:
            x: (B, *).

        Raises:
            IncompatibleModel: Where the network gives a score.
            InputError: Where the network does not return one value for each example.
        """
        if not self.has_energy:
            raise IncompatibleModel(
                "this network gives a score, which need not have an energy; only ScoreModel(net, energy=True) has one"
            )
        check_batch_of("x", x)
        value = self._network(x)
        if value.numel() != x.shape[0]:
            raise InputError(
                f"an energy network returns one value for each of {x.shape[0]} examples, got shape {tuple(value.shape)}"
            )
        return value.reshape(-1)

    def _network(self, x: Tensor) -> Tensor:
        value = self.run_network(x, None)
        if not isinstance(value, Tensor):
            raise InputError(f"the network returned {brief(value)}, and a tensor is expected")
        return value.to(x.dtype)
