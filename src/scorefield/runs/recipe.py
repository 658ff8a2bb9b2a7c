"""A recipe: one choice for each concept, as typed options <-> TOML. What the names in it stand for is
`config`'s to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, field_validator

from scorefield.core.shapes import DataSpec, are_images
from scorefield.data.sources.opener import SourceOptions
from scorefield.data.sources.parse import sized
from scorefield.generation.sampling_options import SamplingOptions
from scorefield.models.base import Family
from scorefield.models.categorical_denoiser import CategoricalDenoiser
from scorefield.models.denoiser import Denoiser
from scorefield.models.network_model import ModelBase
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.models.score_model import ScoreModel
from scorefield.objectives import Objective
from scorefield.runtime.bounds import LEVELS, SIDE, TEXT, VALUES
from scorefield.runtime.checks import brief, did_you_mean, is_list
from scorefield.runtime.errors import InputError
from scorefield.runtime.own_code import allowed_modules, allowing, find_class, is_own, loaded_class
from scorefield.runtime.parsing import Options, parse
from scorefield.runtime.reading import as_path, parse_toml, read_text, reading
from scorefield.runtime.registry import NOISE_INPUTS, OBJECTIVES, PARAMETRIZATIONS
from scorefield.store.formats import upgraded
from scorefield.store.run_folder import check_name
from scorefield.training import TrainingOptions

_FAMILIES: Mapping[Family, type[ModelBase]] = {
    kind.family: kind for kind in (Denoiser, CategoricalDenoiser, ScoreModel, NoisyClassifier)
}

__all__ = [
    "DataOptions",
    "ModelOptions",
    "Recipe",
    "TrainedOn",
    "Variant",
    "describe",
    "read_recipe",
    "recipe_names",
    "recipe_text",
    "with_overrides",
]


class DataOptions(SourceOptions):
    """Where the examples come from, their range, and the share that is held out."""

    range: tuple[float, float] = Field(
        (-1.0, 1.0), description="the least and the largest value of an example"
    )
    holdout: float = Field(
        0.1, ge=0, lt=1, description="share of the examples of each class that is held out from training"
    )
    split_seed: int = Field(
        0, ge=0, lt=2**64, description="seed of the split into training and held-out examples"
    )


class ModelOptions(Options):
    """What joins network and process; a classifier uses noise_input alone."""

    parametrization: str = Field(
        "eps",
        description=f"meaning of the network's output: {', '.join(PARAMETRIZATIONS)}; for categorical models x0 or bayes",
    )
    variance: str | None = Field(
        None, description="variance head: range (Σ between its bounds) or direct (ln Σ); default: none"
    )
    noise_input: str = Field(
        "index",
        description=f"the noise level that the network receives: {', '.join(NOISE_INPUTS)}",
    )
    sigma_data: Annotated[float, Field(gt=0)] | Literal["data"] = Field(
        0.5,
        description="standard deviation of the data, used by the parametrization edm; data: estimated from the training "
        "examples when training starts",
    )
    conditional: bool | Literal["auto"] | None = Field(
        None,
        description="class-conditional network; auto: if the data have two classes or more; default: if net.num_classes "
        "is set",
    )
    low_res: int | None = Field(
        None,
        ge=1,
        le=SIDE,
        description="super-resolution: side in pixels of the low-resolution images, made from the data by area averaging",
    )
    energy: bool = Field(
        False,
        description="for a model without a process: the network gives an energy E, and the score is −∇E",
    )


class Variant(Options):
    """Values that replace a recipe's own on a kind of device, and for images up to a size. The first that applies is
    taken; what is set by hand is kept.
    """

    device: Literal["cpu", "cuda", "mps"] | None = Field(
        None, description="kind of training device; default: any"
    )
    up_to: int | None = Field(
        None, ge=1, le=SIDE, description="side in pixels of the largest images; default: any"
    )
    net: dict[str, Any] = Field({}, description="values of [net]")
    training: dict[str, Any] = Field({}, description="values of [training]")

    def applies(self, device: str, data: DataSpec) -> bool:
        """Whether it is for training on this kind of device ("cpu") with such examples."""
        side = max(data.shape[1:]) if are_images(data.shape) else None
        fits = self.up_to is None or (side is not None and side <= self.up_to)
        return self.device in (None, device) and fits

    def __str__(self) -> str:
        values = [
            f"{table}.{name} = {value}"
            for table, values in (("net", self.net), ("training", self.training))
            for name, value in values.items()
        ]
        return ", ".join(values)


class TrainedOn(Options):
    """What a run was trained on, written by training.

    Attributes:
        source: The data, as the user named it.
        examples: How many training examples; None for a stream, which is not counted.
        fingerprint: Digest of the data.
        arrays: Names of the further arrays that training used; the fingerprint covers them.
        shape: Of one example.
        range: Smallest and largest value in the model's space.
        classes: Names of the labels.
        counts: Training examples of each class.
        bins: How many values a quantized number can take; None for continuous data.
        family: Of the model.
        average: Of which average the weights are, where it is not the EMA of training.
    """

    source: str
    examples: int | None = None
    fingerprint: str
    arrays: tuple[str, ...] = ()
    shape: tuple[Annotated[int, Field(ge=1, le=VALUES)], ...] = Field(min_length=1, max_length=8)
    range: tuple[float, float]
    classes: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    bins: int | None = Field(None, ge=2, le=LEVELS)
    family: Family | None = None
    average: str | None = None

    @field_validator("shape")
    @classmethod
    def _few_values(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if math.prod(shape) > VALUES:
            raise ValueError(f"an example of at most {VALUES:,} values is expected")
        return shape

    @property
    def spec(self) -> DataSpec:
        return DataSpec(self.shape, self.range, self.classes, self.bins)

    @property
    def unseen(self) -> frozenset[int]:
        """The classes without a training example, as far as they are counted."""
        return frozenset(label for label, count in enumerate(self.counts) if not count)


class Recipe(Options):
    """One choice for each concept. A run's config.toml is its recipe with what it was trained on.

    Without a process the model is a score without noise levels. An objective that trains such scores leaves
    the process of a recipe out (`leaves_out`): changing the objective is enough to train a bare score.

    Attributes:
        data: The [data] table: where the data is and how it is split.
        process: The [process] table, its "kind" and its arguments; None for a score without noise levels.
        net: The [net] table, the network's "kind" and its arguments.
        model: The [model] table: parametrization, variance, noise input, conditioning.
        objective: The [objective] table, its "kind" and its arguments.
        training: The [training] table.
        sampling: The [sampling] table: how the model is sampled by default.
        variants: Values for a kind of device or a size of images.
        trained_on: What a run was trained on, written by training; None in a recipe.
    """

    name: Annotated[str, AfterValidator(check_name)] = Field(
        "custom", description="name, used for the folders of its runs"
    )
    title: str = Field("", description="what it trains, in one line")
    paper: str = Field("", description="paper of the method")
    data: DataOptions = DataOptions()
    process: dict[str, Any] | None = None
    net: dict[str, Any]
    model: ModelOptions = ModelOptions()
    objective: dict[str, Any] = {"kind": "simple"}
    training: TrainingOptions = TrainingOptions()
    sampling: SamplingOptions = SamplingOptions()
    variants: tuple[Variant, ...] = ()
    trained_on: TrainedOn | None = None

    _allowed: tuple[str, ...] = PrivateAttr(())
    _file: str | None = PrivateAttr(None)

    def allowing(self, modules: Sequence[str]) -> Recipe:
        """The same recipe, which may name code of the user's own; no file can say so.

        Args:
            modules: Names of the modules that this code is in.
        """
        allowed = self.model_copy()
        allowed._allowed = (*self._allowed, *allowed_modules(modules))
        return allowed

    @property
    def allowed(self) -> tuple[str, ...]:
        """The modules of the user's own that it may name."""
        return self._allowed

    @field_validator("process", "net", "objective")
    @classmethod
    def _kind_is_a_word(cls, table: dict[str, Any] | None) -> dict[str, Any] | None:
        if table is not None and not isinstance(table.get("kind", ""), str):
            raise ValueError(f"its kind must be a word, got {brief(table['kind'])}")
        return table

    @property
    def file(self) -> str | None:
        """The file that it was read from, for messages; None where it was changed since, or comes with the package."""
        return self._file

    @property
    def trains(self) -> type[ModelBase] | None:
        """The kind of model that the objective trains; None where only code that may not be imported could say."""
        kind = self.objective.get("kind")
        if kind in OBJECTIVES:
            trains: type[ModelBase] = OBJECTIVES.find(kind).trains
            return trains
        if self.trained_on is not None and self.trained_on.family is not None:
            return _FAMILIES[self.trained_on.family]
        own = _own_class(kind, self.allowed) if isinstance(kind, str) and is_own(kind) else None
        return own.trains if own is not None and issubclass(own, Objective) else None

    def suited_to(self, data: DataSpec) -> Recipe:
        """The same recipe with what it leaves to the data decided: whether the model is class-conditional.

        An unconditional model drops no labels. [net] is left to say what the data say, where a description
        of a trained network says otherwise.

        Args:
            data: What one example is, with the names of its classes.
        """
        asked = self.model.conditional
        if asked is None:
            return self
        conditional = data.num_classes > 1 if asked == "auto" else asked
        training, net = self.training, dict(self.net)
        if asked == "auto" and not conditional:
            training = training.model_copy(update={"label_dropout": 0.0})
        if bool(net.get("num_classes")) != conditional:
            net = {name: value for name, value in net.items() if name not in ("num_classes", "null_label")}
        model = self.model.model_copy(update={"conditional": conditional})
        suited = self.model_copy(update={"model": model, "training": training, "net": net})
        suited._allowed = self._allowed
        return suited

    def variant(self, device: str, data: DataSpec) -> Variant | None:
        """The first of `variants` that applies, or None.

        Args:
            device: Kind of the device, such as "cpu".
            data: What one example is.
        """
        return next((variant for variant in self.variants if variant.applies(device, data)), None)

    def on(self, device: str, data: DataSpec) -> Recipe:
        """The same recipe with the values of its variant for this kind of device and such examples, and no
        variants.

        Args:
            device: Kind of the device, such as "cpu".
            data: What one example is.
        """
        if not self.variants:
            return self
        variant = self.variant(device, data) or Variant()
        training = {**self.training.model_dump(), **variant.training}
        return self.model_copy(
            update={
                "net": {**self.net, **variant.net},
                "training": parse(TrainingOptions, training, "training"),
                "variants": (),
            }
        )

    def sized(self) -> Recipe:
        """The same recipe with the size of images that `data.size` = "auto" stands for.

        Raises:
            InputError: Where the data cannot be looked at.
        """
        return self.model_copy(update={"data": sized(self.data)})

    @property
    def is_classifier(self) -> bool:
        """Whether this is a classifier of noisy examples: it has classes and no samples."""
        return self.trains is NoisyClassifier

    @property
    def leaves_out(self) -> str | None:
        """A sentence on a process that the objective has no use for; None where there is none."""
        if self.process is None or self.trains is not ScoreModel:
            return None
        return (
            f"the objective {self.objective.get('kind')} trains a score without noise levels: the recipe's "
            f"[process] ({self.process.get('kind')}) is ignored"
        )


def _own_class(kind: str, allowed: Sequence[str]) -> type | None:
    """The class that "module:Name" names, where it may be imported or is there already."""
    try:
        with allowing(allowed):
            return find_class(kind, "objective.kind")
    except InputError:
        return loaded_class(kind)


def recipe_names() -> list[str]:
    """The recipes that come with the package, sorted."""
    return sorted(
        path.name.removesuffix(".toml") for path in _recipes().iterdir() if path.name.endswith(".toml")
    )


def recipe_text(name: str) -> str:
    """The TOML of a recipe of the package, or of a .toml file. InputError for an unknown name or an unreadable file."""
    if name.endswith(".toml"):
        return read_text(as_path(name, "a recipe"), "a recipe", TEXT)
    known = recipe_names()
    if name not in known:
        raise InputError(
            f"unknown recipe {name!r}{did_you_mean(name, known)}; see `scorefield recipes`, or give a .toml file"
        )
    text: str = (_recipes() / f"{name}.toml").read_text()
    return text


def read_recipe(name: str) -> Recipe:
    """A recipe by its name or from a .toml file. InputError for an unknown name, broken TOML or a wrong key."""
    text, what = recipe_text(name), f"the recipe {name}"
    with reading(what):
        tables = upgraded(parse_toml(text), what)
    try:
        recipe = parse(Recipe, {"name": Path(name).stem, **tables})
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    recipe._file = what if name.endswith(".toml") else None
    return recipe


def with_overrides(
    recipe: Recipe, settings: Sequence[str] | Mapping[str, object], within: str = ""
) -> Recipe:
    """The recipe with settings applied.

    Args:
        settings: `a.b=c` each, where c is a TOML value, or text where it is none; or {"a.b": value}.
        within: The table that all names are in. Default: they start at the top.
    """
    if isinstance(settings, str):
        settings = [settings]
    if not (isinstance(settings, Mapping) or is_list(settings)) or not all(
        isinstance(name, str) for name in settings
    ):
        raise InputError(f'settings are "a.b=c" each, or {{"a.b": value}}; got {brief(settings)}')
    values = recipe.model_dump(warnings=False)  # what changed is checked below
    changes = settings.items() if isinstance(settings, Mapping) else map(_setting, settings)
    for name, value in changes:
        key = f"{within}.{name}" if within else name
        *path, last = key.split(".")
        _keep_by_hand(values["variants"], key)
        table = values
        for part in path:
            if not isinstance(table.get(part), dict):
                raise InputError(
                    f"there is no table {part!r} in {key}{did_you_mean(part, [k for k in table if isinstance(table[k], dict)])}"
                )
            table = table[part]
        table[last] = value
    return parse(Recipe, values).allowing(recipe.allowed)


def _keep_by_hand(variants: object, key: str) -> None:
    """Take a setting, or a whole table, out of the variants of a recipe: what is set by hand is not replaced."""
    table, _, name = key.partition(".")
    for variant in variants if isinstance(variants, Sequence) else ():
        if isinstance(variant, dict) and isinstance(variant.get(table), dict):
            variant[table] = {k: v for k, v in variant[table].items() if name not in ("", k)}


def _setting(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"a setting is written a.b=c, got {text!r}")
    return key.strip(), _toml_value(value.strip())


def _recipes() -> Any:
    return files("scorefield") / "recipes"


def _toml_value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # ValueError: no TOML, and integers of thousands of digits
        return text


def describe(recipe: Recipe) -> Mapping[str, Any]:
    """The tables of a recipe that training's own description of its objects lacks."""
    return recipe.model_dump(
        include={"name", "title", "paper", "data"} | (set() if recipe.is_classifier else {"sampling"})
    )
