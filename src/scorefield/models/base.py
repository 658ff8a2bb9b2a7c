"""What a model is: the protocols that a model of one's own satisfies, and `Model`, which holds all that sampling,
training and evaluation may ask.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from scorefield.core.distributions import Categorical
from scorefield.core.prediction import Prediction
from scorefield.core.shapes import DataSpec
from scorefield.models.network import ModelSettings, NetworkFacts, NetworkInputs, Null, describe_network
from scorefield.nets.blocks import pieces
from scorefield.process.base import GaussianProcess, Process, Time
from scorefield.process.categorical import CategoricalProcess
from scorefield.runtime.checks import did_you_mean
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.precision import Precision, is_compiled

__all__ = [
    "AnyModel",
    "CategoricalDenoise",
    "CategoricalModel",
    "Classifier",
    "ClassifierModel",
    "ConditionalCategories",
    "ConditionalModel",
    "Denoise",
    "Family",
    "GaussianModel",
    "Labels",
    "LogDensity",
    "Model",
    "ModelBase",
    "ScoreFunction",
    "need_classes",
]

Labels = int | Sequence[int] | Tensor
LogDensity = Callable[[Tensor], Tensor]  # x (B, *) -> ln p(x) up to a constant, (B,)
Family = Literal["gaussian", "categorical", "score", "classifier"]


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

    Foreign objects become a `Model` by `wrappers.as_model`.
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
    def arrays(self) -> frozenset[str]:
        """Names of the further arrays (B, *) that its network takes beside labels, such as "low_res" or "mask"; without
        those that are bound already.
        """
        return frozenset()

    @property
    def missing(self) -> frozenset[str]:
        """Those of `arrays` without which it cannot be called."""
        return frozenset()

    @property
    def nulls(self) -> Mapping[str, Null]:
        """What stands for "not given" in its arrays, bound ones too, by name; of labels it is `null_label`."""
        return {}

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
    def config(self) -> Mapping[str, object] | None:
        """What rebuilds it, apart from its network and process, from a configuration file; None where it does not
        describe itself.
        """
        return None

    @property
    def net_config(self) -> Mapping[str, object] | None:
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

    def network_blocks(self) -> list[nn.Module]:
        """The blocks that its network calls one after another, for sharded training; none where it does not say."""
        return []

    def compile_network(self) -> None:
        """Have torch.compile compile its network. InputError where there is none that could be."""
        raise InputError(f"{self.kind} has no network that could be compiled: leave compile out")

    def run_in(self, dtype: torch.dtype | None) -> None:
        """Have the network run in this dtype under autocast, plainly if None; nothing where there is no choice."""

    def given(self, y: Labels | None = None, **arrays: Tensor) -> Model:
        """This model with conditioning bound, so that samplers never see it.

        Args:
            y: One class for every example, or (B,) of them. Default: labels stay unbound.
            arrays: Further inputs of the network by name, (B, *), or (1, *) for every example.

        Raises:
            InputError: For labels that it does not know, and for arrays that it does not take or of a wrong shape.
        """
        if y is None and not arrays:
            return self
        raise IncompatibleModel(f"{self.kind} takes no labels and no further arrays: leave them out")

    def conditioning(self, x0: Tensor, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What it is shown of an example's further arrays, beside its labels, and of the example itself.

        Args:
            x0: Data (B, *).
            arrays: The further arrays of the same examples, (B, *) by name; those that it does not take are left out.

        Returns:
            The keywords of a call; of a super-resolution model also `low_res`, x0 reduced.
        """
        return {name: array for name, array in arrays.items() if name in self.arrays}

    def check_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        """InputError for arrays that it does not take, or of a wrong shape.   arrays: (B, *) by name."""
        if arrays:
            raise InputError(f"{self.kind} takes no array {next(iter(arrays))!r}: remove it")

    def refuse_missing(self, bound: Collection[str] = ()) -> None:
        """InputError where an array is missing without which it cannot be called.   bound: names of further ones."""
        for name in sorted(self.missing - set(bound)):
            raise InputError(
                f"the network of this model needs the array {name!r} of every example: bind it by model.given({name}=...), or sample "
                f"with conditions={{{name!r}: ...}}"
            )


AnyModel = Model | ScoreFunction | CategoricalDenoise  # of the library, or of one's own


class GaussianModel(Model):
    """A model that predicts x̂0 at every level of a Gaussian process: `Denoise`, and all that may be asked of it."""

    family: Family = "gaussian"
    process: GaussianProcess

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        """The prediction at x_t (B, *) and t, a number or (B,), 0 < t ≤ T."""
        raise NotImplementedError

    def given(self, y: Labels | None = None, **arrays: Tensor) -> GaussianModel:
        if y is None and not arrays:
            return self
        raise IncompatibleModel(f"{self.kind} takes no labels and no further arrays: leave them out")

    def branches(self, batch: int, labels: Tensor | None) -> GaussianModel:
        """This model for two copies of `batch` examples, without conditioning and with it, for classifier-free guidance.

        Args:
            batch: B.
            labels: (2B,), the null label B times and then those of the examples; None without labels.

        Returns:
            A model of 2B examples. In the first half every bound array that has a null is replaced by it.
        """
        raise IncompatibleModel(f"{self.kind} takes no conditioning, so it has no unconditional branch")

    def score(self, x: Tensor, t: Time | None = None) -> Tensor:
        """∇ log p_t(x), (B, *)."""
        if t is None:
            raise InputError(
                "this model has a score at every noise level: say which, score(x, t) with 0 < t ≤ T"
            )
        return self(x, t).guided(t).score


class ConditionalModel(GaussianModel):
    """A model that takes its conditioning at every call; `given` binds it."""

    def __call__(self, x_t: Tensor, t: Time, y: Tensor | None = None, **arrays: Tensor) -> Prediction:
        """The prediction at x_t (B, *) and t, a number or (B,), with labels y (B,) int64 or None and further arrays
        (B, *) by name.
        """
        raise NotImplementedError


class CategoricalModel(Model):
    """A model that predicts x_0 of a categorical process: `CategoricalDenoise`, and all that may be asked of it."""

    family: Family = "categorical"
    process: CategoricalProcess

    def __call__(self, x_t: Tensor, t: Time) -> Categorical:
        """p(x_0 | x_t) at integers x_t (B, *) and t, a number or (B,), 0 < t ≤ T."""
        raise NotImplementedError

    def given(self, y: Labels | None = None, **arrays: Tensor) -> CategoricalModel:
        if y is None and not arrays:
            return self
        raise IncompatibleModel(f"{self.kind} takes no labels and no further arrays: leave them out")

    def categories(self, x0: Tensor) -> Tensor:
        """Data as categories, int64 (B, *); integers as they are."""
        return x0


class ConditionalCategories(CategoricalModel):
    """A model of categories that takes its conditioning at every call; `given` binds it."""

    def __call__(self, x_t: Tensor, t: Time, y: Tensor | None = None, **arrays: Tensor) -> Categorical:
        """p(x_0 | x_t), as `CategoricalModel`, with labels y (B,) int64 or None and further arrays (B, *) by name."""
        raise NotImplementedError


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

    gives: ClassVar[str] = (
        "data"  # what its network gives, see Network.gives: "data", numbers of the data's shape, or "logits"
    )
    summary: ClassVar[str] = "a model around a network"  # what it is, for messages
    objectives: ClassVar[str] = "an objective of its own"  # by which it is trained
    autocast_dtype: torch.dtype | None = None

    def __init__(self, net: Callable[..., Tensor], data: DataSpec | None) -> None:
        super().__init__()
        self.net = net
        self.data = data
        self.autocast_dtype = None
        self._precision = Precision()
        self._described: tuple[Callable[..., Tensor], NetworkFacts] | None = None

    @classmethod
    def takes(cls, process: Process | None) -> bool:
        """Whether it is a model of such a process; None is none."""
        raise NotImplementedError

    @classmethod
    def build(
        cls,
        process: Process | None,
        data: DataSpec,
        settings: ModelSettings,
        make_net: Callable[[], Callable[..., Tensor]],
    ) -> Self:
        """The model that a recipe's tables describe.

        Args:
            process: What its [process] describes.
            data: What one example is.
            settings: Its [model] table.
            make_net: Makes the network, once all else is known to fit.

        Raises:
            InputError: Where the tables do not fit this kind of model.
        """
        raise NotImplementedError

    @classmethod
    def network_sizes(
        cls, process: Process | None, data: DataSpec, settings: ModelSettings, accepts: Collection[str]
    ) -> dict[str, int | bool]:
        """The arguments of a network's constructor that follow from the data, by every name that networks have for them.

        Args:
            process: What the recipe's [process] describes.
            data: What one example is.
            settings: Its [model] table.
            accepts: The names of the constructor's arguments.
        """
        wide, heads = cls.channels(process, settings)
        labels = {"num_classes": data.num_classes} if settings.conditional else {}
        levels = {} if process is None else {"levels": int(process.T)}
        return {
            "in_channels": wide * data.shape[0],
            "channels_in": wide * data.shape[0],
            "dim": wide * data.dimensions,
            "out_channels": heads * data.shape[0],
            "out_dim": heads * data.dimensions,
            "noise_levels": process is not None,
            "low_res": settings.low_res is not None,
            **levels,
            **labels,
        }

    @classmethod
    def channels(cls, process: Process | None, settings: ModelSettings) -> tuple[int, int]:
        """How many channels the network receives and gives for each channel of the data."""
        return 1, 1

    @classmethod
    def check_network(cls, facts: NetworkFacts, settings: ModelSettings, name: str) -> None:
        """InputError where the network that a recipe describes does not take what its [model] table asks.   name: of
        the network.
        """
        if settings.conditional and not facts.num_classes:
            raise InputError(
                f"the network {name} is unconditional: use --set model.conditional=false, or another net.kind"
            )
        if settings.low_res is not None and "low_res" not in facts.arrays:
            raise InputError(
                f"the network {name} is not one for super-resolution: remove model.low_res, or use net.kind=unet"
            )
        if settings.low_res is None and "low_res" in facts.required:
            raise InputError(
                "this is a super-resolution network: give the side of the small images, such as --set model.low_res=64"
            )

    def network_inputs(self, batch: int) -> NetworkInputs:
        """What it calls its network with for `batch` examples.

        Raises:
            InputError: Where that depends on data that are not here: the shape of an example, or of a further array.
        """
        if self.data is None:
            raise InputError(
                "the shape of an example is not known: build the model with data=sf.DataSpec(shape)"
            )
        if unknown := sorted(self.missing - {"low_res"}):
            raise InputError(f"the shape of the array {unknown[0]!r} is known from data only")
        x = (batch, *self.data.shape)
        arrays = {name: x for name in ("low_res",) if name in self.missing}
        return NetworkInputs(x, self.noise_at_T(), self.num_classes > 0, arrays)

    def network_blocks(self) -> list[nn.Module]:
        """The blocks that its network calls one after another; none of a network that does not describe itself, which may
        use the weights of a block without calling it.
        """
        net = self.net
        return pieces(net) if isinstance(net, nn.Module) and self.network.config is not None else []

    def noise_at_T(self) -> tuple[float, torch.dtype] | None:
        """What its network receives as the noisiest level, and its dtype; None without levels."""
        return None

    def describe_levels(self) -> str:
        """Its noise levels in words, such as "1000, σ/α from 0.01 to 157 (linear)"."""
        return "none: a score of the data itself"

    def describe_output(self) -> str:
        """What its network gives in words, such as "predicts eps, noise input index"."""
        return self.summary

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU without any."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def network(self) -> NetworkFacts:
        """What the network says of itself."""
        if self._described is None or self._described[0] is not self.net:
            self._described = (self.net, describe_network(self.net))
        return self._described[1]

    @property
    def net_config(self) -> Mapping[str, object] | None:
        return self.network.config

    @property
    def arrays(self) -> frozenset[str]:
        return self.network.arrays

    @property
    def missing(self) -> frozenset[str]:
        return self.network.required

    @property
    def nulls(self) -> Mapping[str, Null]:
        return self.network.nulls

    def check_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        takes = self.arrays
        for name, array in arrays.items():
            if name not in takes and not self.network.takes_any:
                known = f"it takes {', '.join(sorted(takes))}" if takes else "it takes none"
                raise InputError(
                    f"the network of this model takes no array {name!r} ({known}{did_you_mean(name, takes)}): remove {name}"
                )
            if array.ndim < 1 or not len(array):
                raise InputError(
                    f"{name} must hold one row per example, (B, *), or one for all, (1, *); got shape {tuple(array.shape)}"
                )

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


def need_classes(data: DataSpec, settings: ModelSettings) -> None:
    """InputError for a class-conditional model of data without labels."""
    if settings.conditional and not data.classes:
        raise InputError(
            "this recipe is class-conditional, but the data has no labels: use --set model.conditional=false"
        )


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
