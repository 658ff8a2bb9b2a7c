"""Models around models: wrappers, and models with their conditioning bound."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from scorefield.core.distributions import Categorical
from scorefield.core.prediction import Prediction
from scorefield.core.shapes import shown
from scorefield.models.base import (
    CategoricalModel,
    ConditionalCategories,
    ConditionalModel,
    GaussianModel,
    Labels,
    Model,
)
from scorefield.models.network import Null
from scorefield.process.base import Time
from scorefield.runtime.checks import brief, check_length, did_you_mean
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = [
    "Given",
    "GivenCategories",
    "Wrapper",
    "as_labels",
    "class_names",
    "per_example",
    "rows_for",
]

T = TypeVar("T")


class Wrapper(GaussianModel):
    """A model around another one: whatever it does not change, it passes through.

    Args:
        model: The model inside.
    """

    def __init__(self, model: GaussianModel) -> None:
        self.model = model
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
    def dtype(self) -> torch.dtype | None:
        return self.model.dtype

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    @property
    def null_label(self) -> int | None:
        return self.model.null_label

    @property
    def arrays(self) -> frozenset[str]:
        return self.model.arrays

    @property
    def missing(self) -> frozenset[str]:
        return self.model.missing

    @property
    def nulls(self) -> Mapping[str, Null]:
        return self.model.nulls

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

    def given(self, y: Labels | None = None, **arrays: Tensor) -> GaussianModel:
        """The same wrapper around the model with its conditioning bound, see `Model.given`.

        Args:
            y: One class for every example, or (B,) of them, by number or by name. Default: labels stay
                unbound.
            arrays: Further inputs of the network by name, (B, *), or (1, *) for every example.
        """
        return self._around(self.model.given(y, **arrays))

    def conditioning(self, x0: Tensor, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.model.conditioning(x0, arrays)

    def check_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        self.model.check_arrays(arrays)

    def refuse_missing(self, bound: Collection[str] = ()) -> None:
        self.model.refuse_missing(bound)

    def branches(self, batch: int, labels: Tensor | None) -> GaussianModel:
        return self._around(self.model.branches(batch, labels))

    def unconditional(self) -> GaussianModel:
        if self.guided:
            raise IncompatibleModel(
                "a guided model has no unconditional branch: take unconditional() of the model inside the guidance"
            )
        return self._around(self.model.unconditional())

    def _around(self, model: GaussianModel) -> Self:
        new = copy.copy(self)
        new.model = model
        return new

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        return self.model(x_t, t)


class Given(Wrapper):
    """A model with its conditioning bound: samplers see neither labels nor further arrays.

    Args:
        model: A model that takes conditioning.
        y: One class for every example, or (B,) of them, by number or by name. Default: its labels stay unbound.
        arrays: Further inputs of its network by name, (B, *), or (1, *) for every example.

    Raises:
        InputError: For labels that it does not know, and for arrays that it does not take or of a wrong shape.
    """

    model: ConditionalModel

    def __init__(
        self, model: ConditionalModel, y: Labels | None = None, arrays: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(model)
        self.labels = None if y is None else as_labels(y, model.num_classes, class_names(model))
        self.bound = dict(arrays or {})
        model.check_arrays(self.bound)

    def options_shown(self) -> list[str]:
        return _bound_shown(self.labels, self.bound)

    @property
    def num_classes(self) -> int:
        return self.model.num_classes if self.labels is None else 0

    @property
    def null_label(self) -> int | None:
        return self.model.null_label if self.labels is None else None

    @property
    def arrays(self) -> frozenset[str]:
        return self.model.arrays - self.bound.keys()

    @property
    def missing(self) -> frozenset[str]:
        return self.model.missing - self.bound.keys()

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        labels = None
        if self.labels is not None:
            labels = per_example(self.labels, x_t, "labels").to(x_t.device)
        return self.model(x_t, t, labels, **rows_for(self.bound, x_t))

    def given(self, y: Labels | None = None, **arrays: Tensor) -> GaussianModel:
        if y is not None and self.labels is not None:
            raise InputError("labels are already bound to this model")
        return Given(self.model, self.labels if y is None else y, {**self.bound, **arrays})

    def refuse_missing(self, bound: Collection[str] = ()) -> None:
        self.model.refuse_missing({*bound, *self.bound})

    @property
    def droppable(self) -> bool:
        """Whether anything that is bound has a null, so that there is an unconditional branch."""
        labels = self.labels is not None and self.model.null_label is not None
        return labels or bool(self.bound.keys() & self.nulls.keys())

    def branches(self, batch: int, labels: Tensor | None) -> GaussianModel:
        new = copy.copy(self)
        if labels is None and self.labels is not None:
            labels = _two_branches(self.labels.expand(batch), self.model.null_label)
        new.labels = labels
        new.bound = {
            name: _two_branches(array.expand(batch, *array.shape[1:]), self.nulls.get(name))
            for name, array in self.bound.items()
        }
        return new

    def unconditional(self) -> GaussianModel:
        null, dropped = self.model.null_label, self.bound.keys() & self.nulls.keys()
        if null is None and not dropped:
            raise IncompatibleModel(
                "this model has no unconditional branch: train a conditional model with label_dropout=0.1"
            )
        new = copy.copy(self)
        new.labels = self.labels if null is None else torch.tensor(null)
        new.bound = {
            name: torch.as_tensor(self.nulls[name]).to(array).expand_as(array) if name in dropped else array
            for name, array in self.bound.items()
        }
        return new


class GivenCategories(CategoricalModel):
    """A model of categories with its conditioning bound, see `Given`."""

    def __init__(
        self,
        model: ConditionalCategories,
        y: Labels | None = None,
        arrays: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.model = model
        self.process, self.data = model.process, model.data
        self.labels = None if y is None else as_labels(y, model.num_classes, class_names(model))
        self.bound = dict(arrays or {})
        model.check_arrays(self.bound)

    def __repr__(self) -> str:
        return f"GivenCategories({', '.join([self.model.kind, *_bound_shown(self.labels, self.bound)])})"

    @property
    def num_classes(self) -> int:
        return self.model.num_classes if self.labels is None else 0

    @property
    def arrays(self) -> frozenset[str]:
        return self.model.arrays - self.bound.keys()

    @property
    def missing(self) -> frozenset[str]:
        return self.model.missing - self.bound.keys()

    def given(self, y: Labels | None = None, **arrays: Tensor) -> CategoricalModel:
        if y is not None and self.labels is not None:
            raise InputError("labels are already bound to this model")
        return GivenCategories(self.model, self.labels if y is None else y, {**self.bound, **arrays})

    @property
    def inner(self) -> Model | None:
        return self.model

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype | None:
        return self.model.dtype

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        return self.model.autocast_dtype

    @property
    def is_compiled(self) -> bool:
        return self.model.is_compiled

    def run_in(self, dtype: torch.dtype | None) -> None:
        self.model.run_in(dtype)

    def __call__(self, x_t: Tensor, t: Time) -> Categorical:
        labels = None
        if self.labels is not None:
            labels = per_example(self.labels, x_t, "labels").to(x_t.device)
        return self.model(x_t, t, labels, **rows_for(self.bound, x_t))

    def categories(self, x0: Tensor) -> Tensor:
        return self.model.categories(x0)


def class_names(model: Model) -> tuple[str, ...]:
    """The names of a model's classes, in the order of their numbers; none where it does not know them."""
    return () if model.data is None else tuple(model.data.classes)


def as_labels(y: Labels, classes: int, names: Sequence[str] = ()) -> Tensor:
    """y as int64, () or (B,). InputError unless all lie in 0 … classes − 1 (any if classes is 0).

    y: one class or (B,) of them, by number or by one of the `names`.
    """
    check_length("labels", y)
    if isinstance(y, np.ndarray):
        y = y.tolist()
    if isinstance(y, str):
        y = _number_of(y, names)
    elif isinstance(y, Sequence):
        y = [_number_of(one, names) if isinstance(one, str) else one for one in y]
    try:
        labels = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError):  # of words, of objects, of lists of several lengths
        raise InputError(
            f"labels are one class by number or name, or a list of them; got {brief(y)}"
        ) from None
    if (
        labels.ndim > 1
        or labels.dtype == torch.bool
        or labels.is_floating_point()
        or labels.is_complex()
        or not labels.numel()
    ):
        raise InputError(
            f"labels are one class or a list of them, one an example; got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    labels = labels.long()
    if classes and not bool(((labels >= 0) & (labels < classes)).all()):
        raise InputError(f"labels must lie in 0 … {classes - 1}, got {shown(labels.reshape(-1))}")
    return labels


def _number_of(name: str, names: Sequence[str]) -> int:
    if name not in names:
        if not names:
            raise InputError(
                f"the class {name!r} is given by name, and this model has no class names: give numbers"
            )
        raise InputError(
            f"there is no class {name!r}{did_you_mean(name, names)}; there are {', '.join(names[:20])}"
        )
    if list(names).count(name) > 1:
        raise InputError(f"several classes are called {name!r}: give their numbers")
    return list(names).index(name)


def per_example(values: Tensor, x: Tensor, what: str) -> Tensor:
    """Values () or (B,), one for each example of x, as (B,). InputError where there are not B of them."""
    if values.ndim == 1 and len(values) != x.shape[0]:
        raise InputError(
            f"{len(values)} {what} are bound to this model, but the batch has {x.shape[0]} examples"
        )
    return values.expand(x.shape[0])


def rows_for(arrays: Mapping[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Bound arrays as they belong to the examples of x: (B, *) on its device, real numbers in its dtype.

    Raises:
        InputError: Where an array has neither B rows nor one.
    """
    found = {}
    for name, array in arrays.items():
        if len(array) not in (1, len(x)):
            raise InputError(
                f"{len(array)} rows of {name} are bound to this model (got shape {tuple(array.shape)}), but the batch has "
                f"{len(x)} examples"
            )
        row = array.to(x) if array.is_floating_point() else array.to(x.device)
        found[name] = row.expand(len(x), *row.shape[1:])
    return found


def _bound_shown(labels: Tensor | None, arrays: Mapping[str, Tensor]) -> list[str]:
    """What a repr shows of bound conditioning."""
    y = [] if labels is None else [f"y={shown(labels)}"]
    return [*y, *(f"{name}={tuple(array.shape)}" for name, array in arrays.items())]


def _two_branches(array: Tensor, null: Null | None) -> Tensor:
    """An array (B, *) twice, its first copy replaced by the null where there is one: (2B, *)."""
    without = array if null is None else torch.as_tensor(null).to(array).expand_as(array)
    return torch.cat([without, array])
