"""What a model is: the protocols that a model of one's own satisfies, and `Model`, which holds all that sampling,
training and evaluation may ask.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from scorefield.core.distributions import Categorical
from scorefield.core.prediction import Prediction
from scorefield.core.shapes import DataSpec
from scorefield.process.base import GaussianProcess, Process, Time
from scorefield.process.categorical import CategoricalProcess
from scorefield.runtime.contracts import refuse_misspelt
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.precision import Precision, is_compiled

__all__ = [
    "CategoricalDenoise",
    "CategoricalModel",
    "Classifier",
    "ClassifierModel",
    "ConditionalModel",
    "Denoise",
    "Family",
    "GaussianModel",
    "Labels",
    "LogDensity",
    "Model",
    "ModelBase",
    "ScoreFunction",
    "as_classifier",
    "as_gaussian",
    "as_model",
    "on_process",
    "with_process",
]

Labels = int | Sequence[int] | Tensor
LogDensity = Callable[[Tensor], Tensor]  # x (B, *) -> ln p(x) up to a constant, (B,)
Family = Literal["gaussian", "categorical", "score", "classifier"]
T = TypeVar("T")


@runtime_checkable
class ScoreFunction(Protocol):
    """Anything with a score: x (B, *) -> ∇ log p(x) (B, *), at noise level t where it has levels."""

    def score(self, x: Tensor, t: Time | None = None) -> Tensor: ...


class Denoise(ScoreFunction, Protocol):
    """Anything that predicts x̂0 at every level of a Gaussian process: what every sampler but Langevin needs.

    A class of one's own with these three members is a model. It may also have any member of `Model`, such as
    `data`, `device`, `num_classes` or `variance`, under that name.
    """

    process: GaussianProcess

    def __call__(self, x_t: Tensor, t: Time) -> Prediction: ...


class CategoricalDenoise(Protocol):
    """Anything that predicts x_0 of a categorical process: (x_t, t) -> p(x_0 | x_t), what the categorical
    samplers need.
    """

    process: CategoricalProcess

    def __call__(self, x_t: Tensor, t: Time) -> Categorical: ...


class Classifier(Protocol):
    """(x_t, t) -> logits (B, K) of p(y | x_t), differentiable in x_t.

    One of one's own may also have `process`, whose levels it was made for, `num_classes`, `data` and `device`.
    """

    def __call__(self, x_t: Tensor, t: Time) -> Tensor: ...


class Model:
    """What sampling, training and evaluation may ask of a model, with the answer of one that does not say.

    family: "gaussian", predicts x̂0 at noise levels (`GaussianModel`); "categorical", predicts categories
    (`CategoricalModel`); "score", a score of the data itself, without levels; "classifier", (x_t, t) -> logits.
    process: whose levels it was made for; None without levels.   data: what one example is; None where the model
    does not know.

    Foreign objects become a `Model` by `as_model`.
    """

    family: Family = "score"
    process: Process | None = None
    data: DataSpec | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cpu")

    @property
    def kind(self) -> str:
        """The name of its class, for messages."""
        return type(self).__name__

    @property
    def num_classes(self) -> int:
        """How many classes it takes labels of, or tells apart as a classifier; 0 for neither, and where they are
        bound already.
        """
        return 0

    @property
    def null_label(self) -> int | None:
        """The label that means "no class", where the network was trained with one; otherwise None."""
        return None

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What its network runs in under autocast; None for plain float32."""
        return None

    @property
    def is_compiled(self) -> bool:
        """Whether its network is compiled by torch.compile."""
        return False

    @property
    def guided(self) -> bool:
        """Whether guidance changes its predictions, or leaves a gradient in them."""
        return False

    @property
    def grad_at(self) -> str | None:
        """Where a gradient that is left to the sampler is taken, "x_t" or "mean"; None where none is left."""
        return None

    @property
    def clips(self) -> bool:
        """Whether x̂0 is clipped or thresholded, so that the flow cannot be walked back."""
        return False

    @property
    def variance(self) -> str | None:
        """The meaning of its variance head, "range" or "direct"; None without one."""
        return None

    @property
    def low_res(self) -> int | None:
        """The side in pixels of the images that a super-resolution model upsamples; None for other models."""
        return None

    @property
    def has_energy(self) -> bool:
        """Whether its score is the gradient of an energy network."""
        return False

    @property
    def keeps_to_levels(self) -> str | None:
        """The option for which it has no meaning between the levels of a table, such as 'noise_input="rank"';
        None where it has one.
        """
        return None

    @property
    def config(self) -> Mapping[str, Any] | None:
        """What rebuilds it, apart from its network and process, from a configuration file; None where it does not
        describe itself.
        """
        return None

    @property
    def net_config(self) -> Mapping[str, Any] | None:
        """What rebuilds its network; None where that does not describe itself."""
        return None

    @property
    def inner(self) -> Model | None:
        """The model that this one is a wrapper of; None for one that is no wrapper."""
        return None

    def layers(self) -> Iterator[Model]:
        """A stack of wrappers from the outside in, ending with the model that they are around."""
        layer: Model | None = self
        while layer is not None:
            yield layer
            layer = layer.inner

    @property
    def log_density(self) -> LogDensity | None:
        """x -> ln p(x) + constant of the data's density, for Metropolis steps; None where only the score is known."""
        return None

    def run_in(self, dtype: torch.dtype | None) -> None:
        """Have the network run in this dtype under autocast, plainly if None; nothing where there is no choice."""

    def given(self, y: Labels | None = None) -> Model:
        """This model with its labels bound: y is one class for every example, or (B,) of them."""
        if y is None:
            return self
        raise IncompatibleModel(f"{self.kind} takes no labels: leave them out")


class GaussianModel(Model):
    """A model that predicts x̂0 at every level of a Gaussian process: `Denoise`, and all that may be asked of it."""

    family: Family = "gaussian"
    process: GaussianProcess

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        """The prediction at x_t (B, *) and t, a number or (B,), 0 < t ≤ T."""
        raise NotImplementedError

    def given(self, y: Labels | None = None) -> GaussianModel:
        if y is None:
            return self
        raise IncompatibleModel(f"{self.kind} takes no labels: leave them out")

    def score(self, x: Tensor, t: Time | None = None) -> Tensor:
        """∇ log p_t(x), (B, *)."""
        if t is None:
            raise InputError(
                "this model has a score at every noise level: say which, score(x, t) with 0 < t ≤ T"
            )
        return self(x, t).guided(t).score


class ConditionalModel(GaussianModel):
    """A model that takes its labels at every call; `given` binds them."""

    def __call__(self, x_t: Tensor, t: Time, y: Tensor | None = None) -> Prediction:
        """The prediction at x_t (B, *) and t, a number or (B,), with labels y (B,) int64 or None."""
        raise NotImplementedError


class CategoricalModel(Model):
    """A model that predicts x_0 of a categorical process: `CategoricalDenoise`, and all that may be asked of it."""

    family: Family = "categorical"
    process: CategoricalProcess

    def __call__(self, x_t: Tensor, t: Time) -> Categorical:
        """p(x_0 | x_t) at integers x_t (B, *) and t, a number or (B,), 0 < t ≤ T."""
        raise NotImplementedError

    def given(self, y: Labels | None = None) -> CategoricalModel:
        if y is None:
            return self
        raise IncompatibleModel(f"{self.kind} takes no labels: leave them out")

    def categories(self, x0: Tensor) -> Tensor:
        """Data as categories, int64 (B, *); integers as they are."""
        return x0


class ClassifierModel(Model):
    """A classifier of noisy examples: `Classifier`, and all that may be asked of it."""

    family: Family = "classifier"

    def __call__(self, x_t: Tensor, t: Time) -> Tensor:
        """Logits (B, K) at x_t (B, *) and t, a number or (B,)."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype | None:
        """What its parameters are in; None where it takes x_t in any."""
        return None


class ModelBase(nn.Module, Model):
    """What every model around a network shares: the network, what one example is, the device, and the precision
    it runs in.

    net: called as the model says.   data: what one example is.   autocast_dtype: the network runs in it,
    plainly if None.
    """

    autocast_dtype: torch.dtype | None = None

    def __init__(self, net: Callable[..., Tensor], data: DataSpec | None) -> None:
        super().__init__()
        self.net = net
        self.data = data
        self.autocast_dtype = None
        self._precision = Precision()

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU without any."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def net_config(self) -> Mapping[str, Any] | None:
        return getattr(self.net, "config", None)

    def run_in(self, dtype: torch.dtype | None) -> None:
        self.autocast_dtype = dtype

    def run_network(self, x: Tensor, *rest: Any, **given: Any) -> Tensor:
        """net(x, *rest, **given) in the model's precision: the result has whatever dtype the network gives."""
        return self._precision.call(self.net, self.autocast_dtype, x, *rest, **given)

    def compile_network(self) -> None:
        """Have torch.compile compile the network at its next call, which takes minutes for a large one; the
        same numbers up to rounding.

        On a CPU the library's own compiled loops step aside for it. InputError where there is no network to
        compile, or no compiler.
        """
        if not isinstance(self.net, nn.Module):
            raise InputError(
                f"torch.compile compiles modules, and this network is a {type(self.net).__name__}: leave compile out"
            )
        if self.device.type == "cpu":
            _need_compiler()
        self.net.compile()

    @property
    def is_compiled(self) -> bool:
        """Whether `compile_network` was asked for."""
        return is_compiled(self.net)

    def keep_weights(self) -> None:
        """The weights will stay as they are: under autocast they are then cast once and not at every call,
        where nothing is recorded.

        To be called again after they have changed; until then the old ones are used.
        """
        self._precision.keep()


def _need_compiler() -> None:
    """InputError unless torch.compile finds what it needs on a CPU."""
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise InputError(
            f"torch.compile needs a C++ compiler on a CPU ({str(error).splitlines()[0]}): install g++, name another one in CXX, or leave "
            "compile out"
        ) from None


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


def with_process(thing: object) -> Model:
    """A model or a classifier of whatever kind, as far as its levels and its options go."""
    if isinstance(thing, Model):
        return thing
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
    def config(self) -> Mapping[str, Any] | None:
        return self._optional("config", None)

    @property
    def net_config(self) -> Mapping[str, Any] | None:
        return getattr(getattr(self.thing, "net", None), "config", None)

    @property
    def inner(self) -> Model | None:
        around = getattr(self.thing, "model", None)
        return with_process(around) if _has_process(around) else None

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

    def __call__(self, x_t: Tensor, t: Time, y: Tensor | None = None) -> Prediction:
        pred: Prediction = self.thing(x_t, t) if y is None else self.thing(x_t, t, y)
        return pred

    def given(self, y: Labels | None = None) -> GaussianModel:
        bind = self._optional("given", None)
        return super().given(y) if bind is None else as_gaussian(bind(y), "a model's given(y)")

    @property
    def log_density(self) -> LogDensity | None:
        return None  # of a level, not of the data


class _ForeignCategorical(_Foreign, CategoricalModel):
    """(x_t, t) -> Categorical; labels are passed where there are any."""

    family: Family = "categorical"

    def __init__(self, thing: Any, process: CategoricalProcess) -> None:
        super().__init__(thing)
        self.process = process

    def __call__(self, x_t: Tensor, t: Time, y: Tensor | None = None) -> Categorical:
        p0: Categorical = self.thing(x_t, t) if y is None else self.thing(x_t, t, y)
        return p0

    def given(self, y: Labels | None = None) -> CategoricalModel:
        bind = self._optional("given", None)
        found = super().given(y) if bind is None else as_model(bind(y))
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
