"""What the library's networks share: they remember their arguments, and say what they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import ClassVar

from torch import Tensor, nn

from scorefield.runtime.description import Described
from scorefield.runtime.errors import InputError
from scorefield.runtime.free_memory import is_out_of_memory

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

    def __init_subclass__(cls, **keywords: object) -> None:
        super().__init_subclass__(**keywords)
        if "__init__" in vars(cls):
            setattr(cls, "__init__", _within_memory(vars(cls)["__init__"]))  # noqa: B010


def _within_memory(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that says in words that its sizes, each of which is allowed, are together too much."""

    @wraps(init)
    def built(self: nn.Module, *args: object, **kwargs: object) -> None:
        try:
            init(self, *args, **kwargs)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"not enough memory for the parameters of this {type(self).__name__}: make it smaller",
                command="`scorefield plan RECIPE` estimates what training needs",
            ) from error

    return built
