"""What a model is: the protocols that a model of one's own satisfies, and `Model`, which holds all that sampling,
training and evaluation may ask.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from scorefield.core.distributions import Categorical
from scorefield.core.prediction import Prediction
from scorefield.core.shapes import DataSpec
from scorefield.models.network import Null
from scorefield.process.base import GaussianProcess, Process, Time
from scorefield.process.categorical import CategoricalProcess
from scorefield.runtime.errors import IncompatibleModel, InputError

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
    "ScoreFunction",
]

Labels = int | str | Sequence[int | str] | Tensor
LogDensity = Callable[[Tensor], Tensor]  # x (B, *) -> ln p(x) up to a constant, (B,)
Family = Literal["gaussian", "categorical", "score", "classifier"]


@runtime_checkable
class ScoreFunction(Protocol):
    """Anything with a score: x (B, *) -> ∇ log p(x) (B, *), at noise level t where it has levels."""

    def score(self, x: Tensor, t: Time | None = None) -> Tensor:
        """∇ log p(x), or ∇ log p_t(x) where there are levels.

        Args:
            x: (B, *).
            t: The time of x, a number or (B,). Default: no level.

        Returns:
            (B, *), in the dtype of x.
        """
        ...


class Denoise(ScoreFunction, Protocol):
    """Anything that predicts x̂0 at every level of a Gaussian process: what every sampler but Langevin needs.

    A class of one's own with these three members is a model; without `score`, the score is that of its x̂0. It may also
    have any member of `Model`, such as `data`, `device`, `num_classes` or `variance`, under that name.
    """

    process: GaussianProcess

    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        """x̂0 at (x_t, t).

        Args:
            x_t: (B, *).
            t: A number or (B,), 0 < t ≤ T.

        Returns:
            The prediction, whose x0 is (B, *).
        """
        ...


class CategoricalDenoise(Protocol):
    """Anything that predicts x_0 of a categorical process: (x_t, t) -> p(x_0 | x_t), what the categorical
    samplers need.
    """

    process: CategoricalProcess

    def __call__(self, x_t: Tensor, t: Time) -> Categorical:
        """p(x_0 | x_t).

        Args:
            x_t: Integers, (B, *).
            t: A number or (B,), 0 < t ≤ T.

        Returns:
            A distribution over the K categories of the data, (B, K, *).
        """
        ...


class Classifier(Protocol):
    """(x_t, t) -> logits (B, K) of p(y | x_t), differentiable in x_t.

    One of one's own may also have `process`, whose levels it was made for, `num_classes`, `data` and `device`.
    """

    def __call__(self, x_t: Tensor, t: Time) -> Tensor:
        """Logits of p(y | x_t), (B, K).

        Args:
            x_t: (B, *).
            t: A number or (B,), 0 < t ≤ T.
        """
        ...


class Model:
    """What sampling, training and evaluation may ask of a model, with the answer of one that does not say.

    Foreign objects become a `Model` by `wrappers.as_model`.

    Attributes:
        family: "gaussian", predicts x̂0 at noise levels (`GaussianModel`); "categorical", predicts categories
            (`CategoricalModel`); "score", a score of the data itself, without levels; "classifier", (x_t, t)
            -> logits.
        process: Whose levels it was made for; None without levels.
        data: What one example is; None where the model does not know.
    """

    family: Family = "score"
    process: Process | None = None
    data: DataSpec | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype | None:
        """What its parameters are in; None where it takes x_t in any."""
        return None

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
        """Have torch.compile compile its network.

        Raises:
            InputError: Where there is none that could be compiled.
        """
        raise InputError(f"{self.kind} has no network to compile: remove compile")

    def run_in(self, dtype: torch.dtype | None) -> None:
        """Set the precision of the network; nothing where there is no choice.

        Args:
            dtype: What it runs in under autocast, such as torch.bfloat16; None for plain float32.
        """

    def given(self, y: Labels | None = None, **arrays: Tensor) -> Model:
        """This model with conditioning bound, so that samplers never see it.

        Args:
            y: One class for every example, or (B,) of them, by number or by name. Default: labels stay unbound.
            arrays: Further inputs of the network by name, (B, *), or (1, *) for every example.

        Raises:
            InputError: For labels that it does not know, and for arrays that it does not take or of a wrong shape.
        """
        if y is None and not arrays:
            return self
        raise IncompatibleModel(f"{self.kind} takes no labels and no further arrays: remove them")

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
        """Check further arrays that are to condition the network.

        Args:
            arrays: (B, *) by name.

        Raises:
            InputError: For arrays that it does not take, or of a wrong shape.
        """
        if arrays:
            raise InputError(f"{self.kind} takes no array {next(iter(arrays))!r}: remove it")

    def refuse_missing(self, bound: Collection[str] = ()) -> None:
        """Check that no array is missing without which it cannot be called.

        Args:
            bound: Names of arrays that it is going to be given.

        Raises:
            InputError: For an array that is neither bound nor among `bound`.
        """
        for name in sorted(self.missing - set(bound)):
            raise InputError(
                f"the network of this model needs the array {name!r}: bind it with model.given({name}=...), or sample "
                f"with conditions={{{name!r}: ...}}",
                command="--given FILE.npz",
            )


AnyModel = Model | ScoreFunction | CategoricalDenoise  # of the library, or of one's own


class GaussianModel(Model, ABC):
    """A model that predicts x̂0 at every level of a Gaussian process: `Denoise`, and all that may be asked of it."""

    family: Family = "gaussian"
    process: GaussianProcess

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Time) -> Prediction:
        """x̂0 at (x_t, t).

        Args:
            x_t: (B, *).
            t: A number or (B,), 0 < t ≤ T.

        Returns:
            The prediction, whose x0 is (B, *).
        """

    def given(self, y: Labels | None = None, **arrays: Tensor) -> GaussianModel:
        if y is None and not arrays:
            return self
        raise IncompatibleModel(f"{self.kind} takes no labels and no further arrays: remove them")

    def branches(self, batch: int, labels: Tensor | None) -> GaussianModel:
        """This model for two copies of `batch` examples, without conditioning and with it, for classifier-free guidance.

        Args:
            batch: B.
            labels: (2B,), the null label B times and then those of the examples; None without labels.

        Returns:
            A model of 2B examples. In the first half every bound array that has a null is replaced by it.
        """
        raise IncompatibleModel(f"{self.kind} takes no conditioning, so it has no unconditional branch")

    def unconditional(self) -> GaussianModel:
        """The unconditional branch of a model that was trained with label dropout.

        Labels are the null label, and every bound array that has a null is replaced by it; other arrays stay.

        Raises:
            IncompatibleModel: For a model without such a branch, and for a guided one.
        """
        raise IncompatibleModel(f"{self.kind} takes no conditioning, so it has no unconditional branch")

    def score(self, x: Tensor, t: Time | None = None) -> Tensor:
        """∇ log p_t(x) = (α x̂0 − x)/σ², (B, *), with guidance folded in.

        Args:
            x: (B, *).
            t: The time of x, a number or (B,), 0 < t ≤ T.

        Raises:
            InputError: Without t.
        """
        if t is None:
            raise InputError(
                "this model has a score at every noise level: give t, score(x, t) with 0 < t ≤ T"
            )
        return self(x, t).guided(t).score


class ConditionalModel(GaussianModel):
    """A model that takes its conditioning at every call; `given` binds it."""

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Time, y: Tensor | None = None, **arrays: Tensor) -> Prediction:
        """x̂0 at (x_t, t), given labels and further arrays.

        Args:
            x_t: (B, *).
            t: A number or (B,), 0 < t ≤ T.
            y: Labels (B,) int64, or None.
            arrays: Further conditioning by name, (B, *).

        Returns:
            The prediction, whose x0 is (B, *).
        """


class CategoricalModel(Model, ABC):
    """A model that predicts x_0 of a categorical process: `CategoricalDenoise`, and all that may be asked of it."""

    family: Family = "categorical"
    process: CategoricalProcess

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Time) -> Categorical:
        """p(x_0 | x_t).

        Args:
            x_t: Integers, (B, *).
            t: A number or (B,), 0 < t ≤ T.

        Returns:
            A distribution over the K categories of the data, (B, K, *).
        """

    def given(self, y: Labels | None = None, **arrays: Tensor) -> CategoricalModel:
        if y is None and not arrays:
            return self
        raise IncompatibleModel(f"{self.kind} takes no labels and no further arrays: remove them")

    def categories(self, x0: Tensor) -> Tensor:
        """Data as categories, int64 (B, *); integers as they are."""
        return x0


class ConditionalCategories(CategoricalModel):
    """A model of categories that takes its conditioning at every call; `given` binds it."""

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Time, y: Tensor | None = None, **arrays: Tensor) -> Categorical:
        """p(x_0 | x_t), given labels and further arrays.

        Args:
            x_t: Integers, (B, *).
            t: A number or (B,), 0 < t ≤ T.
            y: Labels (B,) int64, or None.
            arrays: Further conditioning by name, (B, *).

        Returns:
            A distribution over the K categories of the data, (B, K, *).
        """


class ClassifierModel(Model, ABC):
    """A classifier of noisy examples: `Classifier`, and all that may be asked of it."""

    family: Family = "classifier"

    @abstractmethod
    def __call__(self, x_t: Tensor, t: Time) -> Tensor:
        """Logits of p(y | x_t), (B, K).

        Args:
            x_t: (B, *).
            t: A number or (B,), 0 < t ≤ T.
        """
