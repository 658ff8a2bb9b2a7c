"""Models of the user's own behind the members of `Model`: the one place that looks at their attributes by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from scorefield.core.distributions import Categorical
from scorefield.core.prediction import Prediction
from scorefield.core.shapes import DataSpec
from scorefield.models.base import (
    CategoricalModel,
    ClassifierModel,
    ConditionalCategories,
    ConditionalModel,
    Family,
    GaussianModel,
    Labels,
    LogDensity,
    Model,
    ScoreFunction,
)
from scorefield.models.network import Null
from scorefield.models.wrappers import Given, GivenCategories
from scorefield.process.base import GaussianProcess, Process, Time
from scorefield.process.categorical import CategoricalProcess
from scorefield.runtime.checks import brief
from scorefield.runtime.contracts import refuse_misspelt
from scorefield.runtime.errors import IncompatibleModel

__all__ = ["as_classifier", "as_gaussian", "as_model", "model_like", "on_process"]

T = TypeVar("T")


def as_model(thing: object) -> Model:
    """A `Model` itself, or a model of one's own behind the members of `Model`.

    This is the only place that looks at the attributes of a foreign object by name. A class of one's own needs
    `process` and `__call__`, and may have `score` (`Denoise`); `process` and `__call__` where the process is categorical
    (`CategoricalDenoise`); or `score` alone (`ScoreFunction`). Any other member of `Model` is used where it has it.

    Args:
        thing: The model, of the library or of one's own. A wrapper of one's own keeps the model that it is around
            in the attribute `model`.

    Raises:
        IncompatibleModel: For what is no model, and for a misspelt optional member.
    """
    if isinstance(thing, Model):
        return thing
    if isinstance(thing, type):
        raise IncompatibleModel(f"{thing.__name__} is a class: give a model, such as {thing.__name__}(...)")
    refuse_misspelt(thing, _OPTIONAL, "model", beyond=nn.Module)
    process = getattr(thing, "process", None)
    if callable(thing) and isinstance(process, CategoricalProcess):
        return _ForeignCategorical(thing, process)
    if callable(thing) and isinstance(process, GaussianProcess):
        return _ForeignGaussian(thing, process)
    if process is not None:
        what = (
            "is not called (x_t, t)" if isinstance(process, Process) else f"has the process {brief(process)}"
        )
        raise IncompatibleModel(
            f"a model with noise levels has a `process`, such as sf.process.cosine(1000), and is called (x_t, t) -> "
            f"sf.Prediction, see sf.Denoise; {type(thing).__name__} {what}"
        )
    if not isinstance(thing, ScoreFunction):
        raise IncompatibleModel(
            f"scorefield needs a model with a method score(x, t=None), and {brief(thing)} has none; one with noise levels also "
            "has a `process` and is called (x_t, t) -> sf.Prediction, see sf.Denoise"
        )
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
            f"{asker} needs a Gaussian process, but {model.kind} is categorical and has no α, σ or score{instead}"
        )
    what = (
        "is a classifier"
        if model.family == "classifier"
        else "has only a score: sample it with Langevin, or train it at noise levels (for example "
        "sf.process.geometric and sf.objectives.NCSN)"
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
        isinstance(thing, Model | type)
        or not callable(thing)
        or (_has_process(thing) and isinstance(thing, ScoreFunction))
    ):
        raise IncompatibleModel(
            "a classifier is called (x_t, t) and returns logits (B, K), such as sf.load(run) of a classifier's run; got "
            f"{brief(thing)}"
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
    for name in ("model", "weak"):
        around = getattr(new, name, None)
        if _has_process(around):
            setattr(new, name, on_process(around, process))
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
    def dtype(self) -> torch.dtype | None:
        parameters = self.thing.parameters() if isinstance(self.thing, nn.Module) else ()
        return next((p.dtype for p in parameters if p.is_floating_point()), None)

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

    def score(self, x: Tensor, t: Time | None = None) -> Tensor:
        own = isinstance(self.thing, ScoreFunction)
        return super().score(x, t) if own else GaussianModel.score(self, x, t)

    def given(self, y: Labels | None = None, **arrays: Tensor) -> GaussianModel:
        bind: Callable[..., object] | None = self._optional("given", None)
        if bind is not None:
            return as_gaussian(bind(y, **arrays), "a model's given")
        if y is not None and not self.num_classes:
            return super().given(y)
        return Given(self, y, arrays)

    def branches(self, batch: int, labels: Tensor | None) -> GaussianModel:
        return Given(self).branches(batch, labels)

    def unconditional(self) -> GaussianModel:
        return Given(self).unconditional()

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


def _has_process(thing: object) -> bool:
    return getattr(thing, "process", None) is not None


def _keeps_to_levels(thing: object) -> str | None:
    for name, value in (("parametrization", "mean"), ("noise_input", "rank")):
        if getattr(thing, name, None) == value:
            return f'{name}="{value}"'
    return None
