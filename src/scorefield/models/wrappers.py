"""Models around models: wrappers, bound conditioning, and models of one's own behind the members of `Model`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn

from scorefield.core.distributions import Categorical
from scorefield.core.prediction import Prediction
from scorefield.core.shapes import DataSpec, shown
from scorefield.models.base import (
    CategoricalModel,
    ClassifierModel,
    ConditionalCategories,
    ConditionalModel,
    Denoise,
    Family,
    GaussianModel,
    Labels,
    LogDensity,
    Model,
    ScoreFunction,
)
from scorefield.models.network import Null
from scorefield.process.base import GaussianProcess, Process, Time
from scorefield.process.categorical import CategoricalProcess
from scorefield.runtime.contracts import refuse_misspelt
from scorefield.runtime.errors import IncompatibleModel, InputError

__all__ = [
    "Given",
    "GivenCategories",
    "Wrapper",
    "as_classifier",
    "as_gaussian",
    "as_labels",
    "as_model",
    "on_process",
    "per_example",
    "rows_for",
    "model_like",
]

T = TypeVar("T")


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
        """The same wrapper around the model with its conditioning bound, see `Model.given`."""
        return self._around(self.model.given(y, **arrays))

    def conditioning(self, x0: Tensor, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self.model.conditioning(x0, arrays)

    def check_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        self.model.check_arrays(arrays)

    def refuse_missing(self, bound: Collection[str] = ()) -> None:
        self.model.refuse_missing(bound)

    def branches(self, batch: int, labels: Tensor | None) -> GaussianModel:
        return self._around(self.model.branches(batch, labels))

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
        y: One class for every example, or (B,) of them. Default: its labels stay unbound.
        arrays: Further inputs of its network by name, (B, *), or (1, *) for every example.

    Raises:
        InputError: For labels that it does not know, and for arrays that it does not take or of a wrong shape.
    """

    model: ConditionalModel

    def __init__(
        self, model: ConditionalModel, y: Labels | None = None, arrays: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__(model)
        self.labels = None if y is None else as_labels(y, model.num_classes)
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
            raise InputError("labels are bound to this model already: bind them once")
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
        self.labels = None if y is None else as_labels(y, model.num_classes)
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
            raise InputError("labels are bound to this model already: bind them once")
        return GivenCategories(self.model, self.labels if y is None else y, {**self.bound, **arrays})

    @property
    def inner(self) -> Model | None:
        return self.model

    @property
    def device(self) -> torch.device:
        return self.model.device

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


def as_labels(y: Labels, classes: int) -> Tensor:
    """y as int64, () or (B,). InputError unless all lie in 0 … classes − 1 (any if classes is 0)."""
    labels = torch.as_tensor(y)
    if labels.ndim > 1 or labels.dtype == torch.bool or labels.is_floating_point():
        raise InputError(
            f"labels are one class or a list of them, one an example; got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    labels = labels.long()
    if classes and not bool(((labels >= 0) & (labels < classes)).all()):
        raise InputError(f"labels must lie in 0 … {classes - 1}, got {labels.tolist()}")
    return labels


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


def as_model(thing: object) -> Model:
    """A `Model` itself, or a model of one's own behind the members of `Model`.

    This is the only place that looks at the attributes of a foreign object by name. A class of one's own needs
    `process`, `__call__` and `score` (`Denoise`); `process` and `__call__` where the process is categorical
    (`CategoricalDenoise`); or `score` alone (`ScoreFunction`). Any other member of `Model` is used where it has it.

    Args:
        thing: The model, of the library or of one's own. A wrapper of one's own keeps the model that it is around
            in the attribute `model`.

    Raises:
        IncompatibleModel: For what is no model, and for a misspelt optional member.
    """
    if isinstance(thing, Model):
        return thing
    refuse_misspelt(thing, _OPTIONAL, "model", beyond=nn.Module)
    process = getattr(thing, "process", None)
    if callable(thing) and isinstance(process, CategoricalProcess):
        return _ForeignCategorical(thing, process)
    if not isinstance(thing, ScoreFunction):
        raise IncompatibleModel(
            f"scorefield needs a model with a method score(x, t=None), and {type(thing).__name__} has none; one with noise levels also "
            "has a `process` and is called (x_t, t) -> sf.Prediction, see sf.Denoise"
        )
    if callable(thing) and process is not None:
        return _ForeignGaussian(thing, process)
    return _Foreign(thing)


def as_gaussian(thing: object, asker: str, *, categorical: str = "") -> GaussianModel:
    """A model that predicts x̂0 at noise levels, as `as_model` gives it.

    Args:
        thing: The model.
        asker: Who needs the levels, for the message.
        categorical: What to use for a model of categories in its place, for the message.

    Raises:
        IncompatibleModel: For any other model, and for what is no model.
    """
    model = as_model(thing)
    if isinstance(model, GaussianModel):
        return model
    if model.family == "categorical":
        instead = f": use {categorical}" if categorical else ""
        raise IncompatibleModel(
            f"{asker} is for Gaussian noise, and {model.kind} is of categories, which have no α, σ or score{instead}"
        )
    what = (
        "is a classifier"
        if model.family == "classifier"
        else "has a score only: sample it with Langevin, or train it at noise levels (for example sf.process.geometric "
        "and sf.objectives.NCSN)"
    )
    raise IncompatibleModel(
        f"{asker} needs a model with noise levels (a Denoiser or a wrapper of one), and {model.kind} {what}"
    )


def as_classifier(thing: object) -> ClassifierModel:
    """A classifier of noisy examples, or a callable of one's own behind the members of `ClassifierModel`.

    Args:
        thing: (x_t, t) -> logits, of the library or of one's own, see `Classifier`.

    Raises:
        IncompatibleModel: For another kind of model, for what is not callable, and for a misspelt optional member.
    """
    if isinstance(thing, ClassifierModel):
        return thing
    if (
        isinstance(thing, Model)
        or not callable(thing)
        or (_has_process(thing) and isinstance(thing, ScoreFunction))
    ):
        raise IncompatibleModel(
            "a classifier is called (x_t, t) and returns logits (B, K), such as sf.load(run) of a classifier's run; got "
            f"{type(thing).__name__}"
        )
    refuse_misspelt(thing, ("num_classes", "process"), "classifier", beyond=nn.Module)
    return _ForeignClassifier(thing)


def model_like(thing: object) -> Model:
    """A `Model` itself, or those members of `Model` that an object has: of a classifier, or of any module that an
    objective of one's own trains.

    Raises:
        IncompatibleModel: For a misspelt optional member.
    """
    if isinstance(thing, Model):
        return thing
    refuse_misspelt(thing, _OPTIONAL, "model", beyond=nn.Module)
    found = _Foreign(thing)
    process = getattr(thing, "process", None)
    found.process = process if isinstance(process, Process) else None
    return found


def on_process(thing: T, process: Process) -> T:
    """A shallow copy of a model or classifier on another process, with the wrappers in it; the network is shared."""
    new: Any = copy.copy(thing)
    if isinstance(new, nn.Module):  # of which a shallow copy shares the table of its parts
        new._modules = dict(new._modules)
    new.process = process
    if isinstance(new, _Foreign):
        new.thing = on_process(new.thing, process)
    around = getattr(new, "model", None)
    if _has_process(around):
        new.model = on_process(around, process)
    found: T = new
    return found


# What is looked for in a model of one's own, and long enough for a name that is close to it to be a mistake.
_OPTIONAL = (
    "num_classes",
    "null_label",
    "autocast_dtype",
    "is_compiled",
    "grad_at",
    "variance",
    "low_res",
    "has_energy",
    "log_prob",
    "categories",
)


class _Foreign(Model):
    """A model of one's own: what it does not say has the default."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def score(self, x: Tensor, t: Time | None = None) -> Tensor:
        score: Tensor = self.thing.score(x) if t is None else self.thing.score(x, t)
        return score

    @property
    def data(self) -> DataSpec | None:
        return self._optional("data", None)

    @data.setter
    def data(self, data: DataSpec | None) -> None:
        self.thing.data = data

    @property
    def device(self) -> torch.device:
        return self._optional("device", torch.device("cpu"))

    @property
    def kind(self) -> str:
        return type(self.thing).__name__

    @property
    def num_classes(self) -> int:
        return self._optional("num_classes", 0)

    @property
    def null_label(self) -> int | None:
        return self._optional("null_label", None)

    @property
    def arrays(self) -> frozenset[str]:
        return frozenset(self._optional("arrays", ()))

    @property
    def nulls(self) -> Mapping[str, Null]:
        return self._optional("nulls", {})

    def check_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        """What it takes is seen when it is called."""

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        return self._inherited("autocast_dtype", None)

    @property
    def is_compiled(self) -> bool:
        return self._inherited("is_compiled", False)

    @property
    def guided(self) -> bool:
        return self._inherited("guided", False)

    @property
    def grad_at(self) -> str | None:
        return self._inherited("grad_at", None)

    @property
    def clips(self) -> bool:
        return self._inherited("clips", False)

    @property
    def variance(self) -> str | None:
        return self._inherited("variance", None)

    @property
    def low_res(self) -> int | None:
        return self._inherited("low_res", None)

    @property
    def has_energy(self) -> bool:
        return self._optional("has_energy", False)

    @property
    def keeps_to_levels(self) -> str | None:
        inner = self.inner
        return _keeps_to_levels(self.thing) if inner is None else inner.keeps_to_levels

    @property
    def config(self) -> Mapping[str, object] | None:
        return self._optional("config", None)

    @property
    def net_config(self) -> Mapping[str, object] | None:
        return getattr(getattr(self.thing, "net", None), "config", None)

    @property
    def inner(self) -> Model | None:
        around = getattr(self.thing, "model", None)
        return model_like(around) if _has_process(around) else None

    @property
    def log_density(self) -> LogDensity | None:
        if self.has_energy:
            return lambda x: -self.thing.energy(x)
        return self._optional("log_prob", None)

    def run_in(self, dtype: torch.dtype | None) -> None:
        if hasattr(self.thing, "autocast_dtype"):
            self.thing.autocast_dtype = dtype

    def _optional(self, name: str, default: T) -> T:
        return getattr(self.thing, name, default)

    def _inherited(self, name: str, default: T) -> T:
        """Of a wrapper that does not say, what the model inside says."""
        inner = self.inner
        return self._optional(name, default if inner is None else getattr(inner, name))


class _ForeignGaussian(_Foreign, ConditionalModel):
    """(x_t, t) -> Prediction; labels are passed where there are any."""

    family: Family = "gaussian"

    def __init__(self, thing: Any, process: GaussianProcess) -> None:
        super().__init__(thing)
        self.process = process

    def __call__(self, x_t: Tensor, t: Time, y: Tensor | None = None, **arrays: Tensor) -> Prediction:
        pred: Prediction = self.thing(x_t, t, *(() if y is None else (y,)), **arrays)
        return pred

    def given(self, y: Labels | None = None, **arrays: Tensor) -> GaussianModel:
        bind: Callable[..., object] | None = self._optional("given", None)
        if bind is not None:
            return as_gaussian(bind(y, **arrays), "a model's given")
        if y is not None and not self.num_classes:
            return super().given(y)
        return Given(self, y, arrays)

    def branches(self, batch: int, labels: Tensor | None) -> GaussianModel:
        return Given(self).branches(batch, labels)

    @property
    def log_density(self) -> LogDensity | None:
        return None  # of a level, not of the data


class _ForeignCategorical(_Foreign, ConditionalCategories):
    """(x_t, t) -> Categorical; labels are passed where there are any."""

    family: Family = "categorical"

    def __init__(self, thing: Any, process: CategoricalProcess) -> None:
        super().__init__(thing)
        self.process = process

    def __call__(self, x_t: Tensor, t: Time, y: Tensor | None = None, **arrays: Tensor) -> Categorical:
        p0: Categorical = self.thing(x_t, t, *(() if y is None else (y,)), **arrays)
        return p0

    def given(self, y: Labels | None = None, **arrays: Tensor) -> CategoricalModel:
        bind: Callable[..., object] | None = self._optional("given", None)
        found = GivenCategories(self, y, arrays) if bind is None else as_model(bind(y, **arrays))
        if not isinstance(found, CategoricalModel):
            raise IncompatibleModel(f"given(y) of {self.kind} gave another kind of model, {found.kind}")
        return found

    def categories(self, x0: Tensor) -> Tensor:
        convert = self._optional("categories", None)
        return x0 if convert is None else convert(x0)


class _ForeignClassifier(_Foreign, ClassifierModel):
    """(x_t, t) -> logits."""

    family: Family = "classifier"

    def __init__(self, thing: Any) -> None:
        super().__init__(thing)
        process = getattr(thing, "process", None)
        self.process = process if isinstance(process, Process) else None

    def __call__(self, x_t: Tensor, t: Time) -> Tensor:
        logits: Tensor = self.thing(x_t, t)
        return logits

    @property
    def dtype(self) -> torch.dtype | None:
        parameter = next(self.thing.parameters(), None) if isinstance(self.thing, nn.Module) else None
        return None if parameter is None else parameter.dtype


def _has_process(thing: object) -> bool:
    return getattr(thing, "process", None) is not None


def _keeps_to_levels(thing: object) -> str | None:
    for name, value in (("parametrization", "mean"), ("noise_input", "rank")):
        if getattr(thing, name, None) == value:
            return f'{name}="{value}"'
    return None
