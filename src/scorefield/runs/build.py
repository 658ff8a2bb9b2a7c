"""Objects from recipes, and models from runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset, Stream, open_source
from scorefield.data.sources.opener import SourceOptions
from scorefield.generation.options import SamplingOptions, build_grid
from scorefield.generation.sampling import Sampling, build_sampling
from scorefield.models.categorical_denoiser import CategoricalDenoiser
from scorefield.models.denoiser import Denoiser
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.models.score_model import ScoreModel
from scorefield.objectives import Objective
from scorefield.process import CategoricalProcess, GaussianProcess, Process
from scorefield.runs.recipe import (
    DataOptions,
    Recipe,
    TrainedOn,
    describe,
    read_recipe,
    recipe_names,
    with_overrides,
)
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.runtime.own_code import allowing, is_own
from scorefield.runtime.parsing import build, parse
from scorefield.runtime.registry import NETS, OBJECTIVES, PROCESSES
from scorefield.training import RunFolder

__all__ = [
    "M",
    "Model",
    "Recipe",
    "Sampling",
    "SamplingOptions",
    "TrainedOn",
    "build_grid",
    "build_model",
    "build_net",
    "build_process",
    "build_objective",
    "build_sampling",
    "describe",
    "fill_weights",
    "load",
    "of_kind",
    "open_data",
    "open_training_data",
    "read_recipe",
    "read_run",
    "recipe_names",
    "recipe_of",
    "with_overrides",
]


Model = Denoiser | ScoreModel | NoisyClassifier | CategoricalDenoiser
M = TypeVar("M", bound=Model)

_CLASSIFIERS = ("classifier", "mlp")  # the networks that can give a logit a class


def read_run(run: str | Path, allow: Sequence[str] = ()) -> tuple[Recipe, DataSpec]:
    """A run's config.toml, and what one example of its data is.

    Args:
        run: Folder of the run.
        allow: Modules of the user's own from which its objects may be imported.
    Raises:
        InputError: Where there is no run, or the file is broken.
    """
    folder = RunFolder(Path(run))
    tables = folder.read_config()
    try:
        recipe = parse(Recipe, tables).allowing(allow)
    except InputError as error:
        raise InputError(f"{folder.config}: {error}") from None
    if recipe.trained_on is None:
        raise InputError(
            f"{folder.config} does not say what the run was trained on: its [trained_on] table is missing"
        )
    return recipe, recipe.trained_on.spec


def recipe_of(what: str, allow: Sequence[str] = ()) -> tuple[Recipe, bool]:
    """The recipe of this name, of a .toml file, or of a run's folder; and whether it is a run's."""
    if RunFolder(Path(what)).config.is_file():
        return read_run(what, allow)[0], True
    return read_recipe(what).allowing(allow), False


def open_data(options: DataOptions) -> tuple[Dataset, Dataset]:
    """(training, held-out) examples, in the range that the recipe asks for; of a stream, those among its
    first ones.
    """
    data = _open(options)
    return (
        data.first_examples() if isinstance(data, Stream) else data.split(options.holdout, options.split_seed)
    )


def open_training_data(options: DataOptions) -> tuple[Dataset | Stream, Dataset | None]:
    """What training reads, everything that is not held out, and what is held out: None of a stream, which is
    not read for it.
    """
    data = _open(options)
    return (data, None) if isinstance(data, Stream) else data.split(options.holdout, options.split_seed)


def _open(options: DataOptions) -> Dataset | Stream:
    if options.source is None:
        raise InputError(
            "this recipe needs data of yours: give --data with a folder of images, an .npz file or hf:NAME"
        )
    asked = options.model_dump(include=set(SourceOptions.model_fields) - {"source"})
    data = open_source(options.source, **asked)
    if data.spec.bins is not None:
        data = replace(data, spec=replace(data.spec, range=options.range))
    return data.without(options.holdout, options.split_seed) if isinstance(data, Stream) else data


def build_model(
    recipe: Recipe, data: DataSpec, net: torch.nn.Module | None = None, process: Process | None = None
) -> Model:
    """The recipe's model for this data, its network freshly initialised unless given."""
    if recipe.is_classifier:
        return _build_classifier(recipe, data, net, process)
    if recipe.model.conditional and not data.classes:
        raise InputError(
            "this recipe is class-conditional, but the data has no labels: use --set model.conditional=false"
        )
    process = process or build_process(recipe)
    if recipe.model.low_res is not None and not isinstance(process, GaussianProcess):
        raise InputError(
            "images are enlarged by a model with levels of Gaussian noise: leave model.low_res out, or give one [process]"
        )
    net = net or build_net(recipe, data, process)
    if process is None:
        return ScoreModel(net, data, recipe.model.energy)
    if isinstance(process, CategoricalProcess):
        if recipe.model.variance is not None:
            raise InputError("categories have no variance: leave model.variance out")
        return CategoricalDenoiser(net, process, recipe.model.parametrization, recipe.model.noise_input, data)
    if not isinstance(process, GaussianProcess):
        raise InputError(f"[process] must have Gaussian noise or categories, and {process!r} has neither")
    options = recipe.model.model_dump(exclude={"conditional", "energy"})
    return Denoiser(net, process, data=data, **options)


def _build_classifier(
    recipe: Recipe, data: DataSpec, net: torch.nn.Module | None, process: Process | None
) -> NoisyClassifier:
    process = process or build_process(recipe)
    if not isinstance(process, GaussianProcess):
        raise InputError(
            "a classifier of noisy examples needs their levels of Gaussian noise: give the recipe such a [process]"
        )
    if not data.classes:
        raise InputError(
            "this recipe trains a classifier, but the data has no labels: use a folder with a subfolder for each class, or an .npz "
            "with `labels`"
        )
    return NoisyClassifier(net or build_net(recipe, data, process), process, recipe.model.noise_input, data)


def build_process(recipe: Recipe) -> Process | None:
    """The recipe's process; None for a score without noise levels."""
    if recipe.process is None:
        return None
    with allowing(recipe.allowed):
        process: Process = build(PROCESSES, recipe.process, "process")
    return process


def build_net(recipe: Recipe, data: DataSpec, process: Process | None) -> torch.nn.Module:
    """The recipe's network, freshly initialised: what the recipe leaves out follows from the data and the
    process.
    """
    wide, heads = 1, 1 if recipe.model.variance is None else 2
    if isinstance(process, CategoricalProcess):
        wide, heads = process.states, process.classes  # one-hot in, a logit for each category out
    given: dict[str, Any] = {
        "in_channels": wide * data.shape[0],
        "channels_in": wide * data.shape[0],
        "dim": wide * data.dimensions,
        "noise_levels": process is not None,
        **_outputs(recipe, data, heads),
    }
    if process is not None:
        given["levels"] = process.T
    conditional = recipe.model.conditional and not recipe.is_classifier
    if conditional:
        given |= {"num_classes": data.num_classes, "null_label": recipe.training.label_dropout > 0}
    enlarges = recipe.model.low_res is not None and not recipe.is_classifier
    given["low_res"] = enlarges
    kinds = NETS.only([kind for kind in NETS if _fits(kind, recipe)])
    with allowing(recipe.allowed):
        network: torch.nn.Module = build(kinds, recipe.net, "net", given)
    if is_own(recipe.net.get("kind")):
        return network
    if conditional and not getattr(network, "config", {}).get("num_classes"):
        raise InputError(
            f"the network {recipe.net['kind']} is unconditional: use --set model.conditional=false, or another net.kind"
        )
    _check_enlarging(enlarges, network, recipe)
    return network


def _check_enlarging(enlarges: bool, network: torch.nn.Module, recipe: Recipe) -> None:
    takes = bool(getattr(network, "config", {}).get("low_res"))
    if enlarges and not takes:
        raise InputError(
            f"the network {recipe.net['kind']} is not one for super-resolution: remove model.low_res, "
            "or use net.kind=unet"
        )
    if takes and not enlarges:
        raise InputError(
            "this is a super-resolution network: give the side of the small images, such as --set model.low_res=64"
        )


def _fits(kind: str, recipe: Recipe) -> bool:
    """Whether a network of this kind can give what the recipe's model needs: classes, or something of the
    data's shape.
    """
    return kind in _CLASSIFIERS if recipe.is_classifier else kind != "classifier"


def _outputs(recipe: Recipe, data: DataSpec, heads: int) -> dict[str, int]:
    """The sizes that follow from what the network gives: logits, an energy, or so many heads of the data's
    shape.
    """
    if recipe.is_classifier:
        # An MLP's num_classes are labels that it receives.
        count = "out_dim" if recipe.net.get("kind") == "mlp" else "num_classes"
        return {count: data.num_classes, "image_size": data.shape[-1]}
    return {
        "out_channels": heads * data.shape[0],
        "out_dim": 1 if recipe.model.energy else heads * data.dimensions,
    }


def build_objective(recipe: Recipe, model: Model) -> Objective:
    with allowing(recipe.allowed):
        objective: Objective = build(OBJECTIVES, recipe.objective, "objective", {"model": model})
    return objective


@overload
def load(
    run: str | Path,
    net: torch.nn.Module | None = None,
    kind: None = None,
    *,
    process: Process | None = None,
    allow: Sequence[str] = (),
) -> Model: ...


@overload
def load(
    run: str | Path,
    net: torch.nn.Module | None = None,
    *,
    kind: type[M],
    process: Process | None = None,
    allow: Sequence[str] = (),
) -> M: ...


def load(
    run: str | Path,
    net: torch.nn.Module | None = None,
    kind: type[M] | None = None,
    *,
    process: Process | None = None,
    allow: Sequence[str] = (),
) -> M | Model:
    """The model of a run with its averaged weights, in evaluation mode. The run describes itself.

    Args:
        run: Folder of the run.
        net: The network, where it is one of the user's own that the run cannot name. Default: as the run says.
        kind: Class that the model must have, such as `sf.Denoiser`, which type checkers then know. Default:
            any: a Denoiser, a ScoreModel (no noise levels), a NoisyClassifier or a CategoricalDenoiser.
        process: The process, as `net`.
        allow: Modules of the user's own, such as "my_package", from which the run's objects may be imported.
    Raises:
        InputError: Where there is no run, its files are broken or do not fit together, or it names code of a module
            that is not allowed, which is then not imported.
        IncompatibleModel: If the run holds another kind of model.
    """
    folder, (recipe, spec) = RunFolder(Path(run)), read_run(run, allow)
    model = build_model(recipe, spec, net, process)
    return fill_weights(of_kind(model, kind, folder), lambda: load_file(folder.weights), folder)


def of_kind(model: Model, kind: type[M] | None, folder: RunFolder) -> M | Model:
    """The model of a run. IncompatibleModel if it is of another kind than the given one."""
    if kind is None or isinstance(model, kind):
        return model
    raise IncompatibleModel(
        f"{folder.path} holds a {type(model).__name__}, and a {kind.__name__} is needed here"
    )


def fill_weights(model: M, read: Callable[[], Mapping[str, torch.Tensor]], folder: RunFolder) -> M:
    """The model with the weights that `read` gives, in evaluation mode. InputError where they do not fit it."""
    try:
        model.load_state_dict(read())
    except FileNotFoundError:
        raise InputError(
            f"{folder.path} has no model.safetensors yet: train it until its first checkpoint"
        ) from None
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{folder.weights} does not fit this run: {str(error).splitlines()[0]}") from None
    model.eval()
    return model
