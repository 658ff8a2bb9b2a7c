"""What the library's networks share: they remember their arguments, and say what they give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from scorefield.runtime.description import Described

__all__ = ["Network"]


class Network(nn.Module, Described):
    """A network that a recipe can name, `net(x, c, y=None, **arrays)`.

    Attributes:
        gives: What it can be built to return: "data", numbers of the data's shape; "logits", one for each class.
        nulls: What stands for "not given" in a further array of its forward, by name: one number, or one example.
            Classifier-free guidance and label dropout put it in place of the array; an array without one is kept.
    """

    gives: ClassVar[tuple[str, ...]] = ("data",)
    nulls: Mapping[str, float | Tensor] = {}
