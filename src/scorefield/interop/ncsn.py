"""The network of ermongroup/ncsn (Song & Ermon 2019), by its original name and arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from scorefield.interop.arguments import CASE_KEYS, build
from scorefield.nets import RefineNet

__all__ = ["network"]


def network(kind: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The network `kind` ("CondRefineNetDilated") with the fields of the original's configuration.

    It loads the original state dict.

    Raises InputError for an unknown kind or argument.
    """
    return build({"CondRefineNetDilated": cond_refinenet_dilated}, kind, arguments, ignored=CASE_KEYS)


def cond_refinenet_dilated(
    *, channels: int, ngf: int, num_classes: int, image_size: int | None = None, logit_transform: bool = False
) -> RefineNet:
    """CondRefineNetDilated as a `RefineNet`; num_classes are the noise levels, and image_size does not matter."""
    return RefineNet(channels, filters=ngf, levels=num_classes, unit_input=not logit_transform)
