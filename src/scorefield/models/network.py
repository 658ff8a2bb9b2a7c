"""What a network says of itself: its description, and the arrays that it is called with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from scorefield.runtime.errors import IncompatibleModel

__all__ = ["ModelSettings", "NetworkFacts", "NetworkInputs", "Null", "describe_network"]

Null = float | Tensor  # what stands for "not given" in an array: one number, or one example of it


@dataclass(frozen=True)
class NetworkFacts:
    """What is known of a network `net(x, c, y=None, **arrays)`.

    Attributes:
        config: What rebuilds it from a configuration file; None where it does not describe itself.
        arrays: Names of the further arrays (B, *) that its forward takes.
        required: Those of them without which it cannot be called.
        takes_any: Whether it takes any array, by **keywords, so that `arrays` is not all.
        nulls: What stands for "not given" in an array, by name; of labels it is `null_label`.
    """

    config: Mapping[str, object] | None = None
    arrays: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    takes_any: bool = False
    nulls: Mapping[str, Null] = field(default_factory=dict)

    @property
    def num_classes(self) -> int | None:
        """How many classes it takes labels of, or tells apart; None where it does not describe itself."""
        if self.config is None:
            return None
        count = self.config.get("num_classes", 0)
        return count if isinstance(count, int) else 0

    @property
    def null_label(self) -> bool | None:
        """Whether it has a row for the label "none"; None where it does not describe itself."""
        return None if self.config is None else bool(self.config.get("null_label", False))


class ModelSettings(Protocol):
    """The [model] table of a recipe: what joins a network and a process; each kind of model reads its own part."""

    @property
    def parametrization(self) -> str: ...
    @property
    def variance(self) -> str | None: ...
    @property
    def noise_input(self) -> str: ...
    @property
    def sigma_data(self) -> float | str: ...
    @property
    def conditional(self) -> bool | str | None: ...
    @property
    def low_res(self) -> int | None: ...
    @property
    def energy(self) -> bool: ...


@dataclass(frozen=True)
class NetworkInputs:
    """What a model calls its network with, as shapes and numbers, so that plans can be made without data.

    Attributes:
        x: The shape of its first argument, (B, *).
        noise: The number and the dtype of c, that of the noisiest level; None for a network without noise levels.
        labels: Whether it receives labels.
        arrays: Shapes of further arrays by name.
    """

    x: tuple[int, ...]
    noise: tuple[float, torch.dtype] | None
    labels: bool = False
    arrays: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def call(self, net: Callable[..., Tensor], device: str) -> Tensor:
        """The network's output for zeros that are made on this device."""
        batch, keywords = self.x[0], {}
        if self.labels:
            keywords["y"] = torch.zeros(batch, dtype=torch.long, device=device)
        keywords |= {name: torch.zeros(shape, device=device) for name, shape in self.arrays.items()}
        c = None
        if self.noise is not None:
            number, dtype = self.noise
            c = torch.full((batch,), number, dtype=dtype, device=device)
        return net(torch.zeros(self.x, device=device), c, **keywords)


def describe_network(net: Callable[..., Tensor]) -> NetworkFacts:
    """What a network says of itself: the only place that looks at a foreign network.

    Its forward names the arrays that it takes after x, c and y; those without a default are required. A network that
    describes itself by a `config` settles there with True or False whether it takes an array that it names. It may
    declare `nulls`, a mapping from the names of its arrays to what stands for "not given".

    Args:
        net: A network, a module or any callable with the signature net(x, c, y=None, **arrays).

    Raises:
        IncompatibleModel: Where a null is declared for an array that it does not take.
    """
    config: Mapping[str, object] | None = getattr(net, "config", None)
    takes_any, named, needed = _parameters(net)
    settled = {} if config is None else {n: config[n] for n in named if isinstance(config.get(n), bool)}
    arrays = frozenset(name for name in named if settled.get(name, True))
    required = frozenset(name for name in arrays if name in needed or settled.get(name, False))
    nulls: Mapping[str, Null] = getattr(net, "nulls", {})
    if unknown := [name for name in nulls if name not in arrays and not takes_any]:
        raise IncompatibleModel(
            f"{type(net).__name__} declares a null value for {unknown[0]!r}, but its forward takes no array of "
            "that name"
        )
    return NetworkFacts(config, arrays, required, takes_any, dict(nulls))


def _parameters(net: Callable[..., Tensor]) -> tuple[bool, list[str], set[str]]:
    """(Whether it takes any keyword, names of arrays beyond x, c and y, those of them without a default)."""
    try:
        signature = inspect.signature(net.forward if isinstance(net, nn.Module) else net)
    except (TypeError, ValueError):  # of a callable that is not Python's
        return True, [], set()
    parameters = list(signature.parameters.values())
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    by_name = [one for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)]
    positional = sum(one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) for one in parameters)
    skipped = {one.name for one in parameters[: min(positional, 2)]} | {"y"}  # x, c, and labels
    further = [one for one in by_name if one.name not in skipped]
    return takes_any, [one.name for one in further], {one.name for one in further if one.default is one.empty}
