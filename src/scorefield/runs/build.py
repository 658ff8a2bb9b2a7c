"""Objects from recipes, and models from runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TypeVar, overload

import torch

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset, Stream, open_source
from scorefield.data.sources.opener import SourceOptions
from scorefield.data.sources.parse import expected_spec, knows_size
from scorefield.generation.sampling import Sampling, build_sampling
from scorefield.generation.sampling_options import SamplingOptions, build_grid
from scorefield.models.categorical_denoiser import CategoricalDenoiser
from scorefield.models.denoiser import Denoiser
from scorefield.models.network import describe_network
from scorefield.models.network_model import ModelBase
from scorefield.models.score_model import ScoreModel
from scorefield.objectives import Objective
from scorefield.process import Process
from scorefield.runs.recipe import (
    DataOptions,
    Recipe,
    TrainedOn,
    describe,
    read_recipe,
    recipe_names,
    with_overrides,
)
from scorefield.runtime.bounds import few_modules
from scorefield.runtime.checks import brief
from scorefield.runtime.errors import IncompatibleModel, InputError, ScorefieldError
from scorefield.runtime.own_code import allowing, is_own
from scorefield.runtime.parsing import build, parse
from scorefield.runtime.reading import MissingFile, as_path, reading
from scorefield.runtime.registry import NETS, OBJECTIVES, PROCESSES
from scorefield.runtime.weights import WeightsFile, check_tensors, misfit
from scorefield.training import RunFolder

__all__ = [
    "M",
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
    "check_given",
    "describe",
    "expected_data",
    "fill_weights",
    "load",
    "load_model",
    "meta_model",
    "model_kind",
    "naming",
    "of_kind",
    "open_data",
    "open_weights",
    "open_training_data",
    "read_recipe",
    "read_run",
    "recipe_names",
    "recipe_of",
    "with_overrides",
    "with_some_sigma",
]


M = TypeVar("M", bound=ModelBase)

_KINDS: tuple[type[ModelBase], ...] = (ScoreModel, Denoiser, CategoricalDenoiser)


def read_run(run: str | Path, allow: Sequence[str] = ()) -> tuple[Recipe, DataSpec]:
    """A run's config.toml, and what one example of its data is.

    Args:
        run: Folder of the run.
        allow: Modules of the user's own from which its objects may be imported.
    Raises:
        InputError: Where there is no run, or the file is broken.
    """
    folder = RunFolder(as_path(run, "a run"))
    with reading(folder.config):
        tables = folder.read_config()
    with naming(folder.config):
        recipe = parse(Recipe, tables).allowing(allow)
        recipe._file = str(folder.config)
        if recipe.trained_on is None:
            raise InputError("[trained_on], which says what the run was trained on, is missing")
        _check_shape(recipe.data, recipe.trained_on)
        return recipe, recipe.trained_on.spec


def _check_shape(options: DataOptions, trained_on: TrainedOn) -> None:
    """InputError where [data] and [trained_on] differ about the shape of an example, as after a change by hand: the
    same numbers in another shape would be read as points where they are images.
    """
    if not knows_size(options):
        return
    expected, found = expected_spec(options, labelled=False).shape, trained_on.shape
    free = len(expected) == 3 and options.channels is None  # how many channels the data have
    if len(found) != len(expected) or found[free:] != expected[free:]:
        raise InputError(
            f"trained_on.shape is {list(found)}, and by [data] an example of {options.source} has shape "
            f"{list(expected)}: restore the values that training wrote"
        )


@contextmanager
def naming(file: Path | str | None, table: str = "") -> Iterator[None]:
    """Every failure of the block is an error of this library that begins with the file, and the table in it, that it is
    about. None: no file is said.
    """
    try:
        with reading(file or "a description"):
            yield
    except ScorefieldError as error:
        if file is None or str(file) in str(error):
            raise
        place = "" if not table or table in str(error) else f" [{table}]"
        raise type(error)(f"{file}:{place} {error}", command=error.command) from error.__cause__


def recipe_of(what: str, allow: Sequence[str] = ()) -> tuple[Recipe, bool]:
    """The recipe of this name, of a .toml file, or of a run's folder; and whether it is a run's."""
    folder = as_path(what, "a recipe or a run")
    if RunFolder(folder).config.is_file():
        return read_run(what, allow)[0], True
    if what not in recipe_names() and (
        folder.is_dir() or (len(folder.parts) > 1 and folder.suffix != ".toml")
    ):
        problem = "is not a run: it has no config.toml" if folder.is_dir() else "is not there"
        raise InputError(
            f"the folder {what} {problem}; give the folder of a run, the name of a recipe (see `scorefield recipes`) or a "
            ".toml file"
        )
    return read_recipe(what).allowing(allow), False


def expected_data(recipe: Recipe) -> DataSpec:
    """What the recipe's data will look like, without opening it."""
    if recipe.trained_on is not None:
        return recipe.trained_on.spec
    asked = recipe.model.conditional
    labelled = recipe.data.classes is not None if asked == "auto" else bool(asked)
    spec = expected_spec(recipe.data, labelled or recipe.is_classifier)
    return replace(spec, range=recipe.data.range)


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
            "this recipe needs your own data: give data.source, a folder of images, an .npz file or hf:NAME",
            command="--data",
        )
    asked = options.model_dump(include=set(SourceOptions.model_fields) - {"source"})
    data = open_source(options.source, **asked)
    if data.spec.bins is not None:
        data = replace(data, spec=replace(data.spec, range=options.range))
    return data.without(options.holdout, options.split_seed) if isinstance(data, Stream) else data


def build_model(
    recipe: Recipe,
    data: DataSpec,
    net: torch.nn.Module | None = None,
    process: Process | None = None,
    device: str | None = None,
) -> ModelBase:
    """The recipe's model for this data, its network freshly initialised unless given; on torch's default device unless one
    is named.
    """
    recipe = recipe.suited_to(data)
    if net is not None and not callable(net):
        raise InputError(f"net must be a network, a module that is called as net(x, c), got {brief(net)}")
    if process is not None and not isinstance(process, Process):
        raise InputError(f"process must be a process of sf.process, or one of your own, got {brief(process)}")
    with naming(recipe.file):
        process = build_process(recipe) if process is None else process
        kind = model_kind(recipe, process)
        if not kind.takes(process):
            other = _kind_of_process(process)
            raise InputError(
                f"the objective {recipe.objective.get('kind')} trains a {kind.__name__}, {kind.summary}, and this [process] belongs "
                f"to a {other.__name__}: use {other.objectives}, or give another [process]"
            )

        def make_net() -> torch.nn.Module:
            with nullcontext() if device is None else torch.device(device):
                return build_net(recipe, data, process)

        model = kind.build(process, data, recipe.model, make_net if net is None else lambda: net)
        if 0 < model.num_classes < data.num_classes:
            raise InputError(
                f"[net] has {model.num_classes} classes, but the data have {data.num_classes}: remove "
                "net.num_classes, which is taken from the data"
            )
        return model


def model_kind(recipe: Recipe, process: Process | None) -> type[ModelBase]:
    """The kind of model that the recipe's objective trains; of one of the user's own that may not be imported, the
    kind that there is for the process.
    """
    return recipe.trains or _kind_of_process(process)


def _kind_of_process(process: Process | None) -> type[ModelBase]:
    found = next((kind for kind in _KINDS if kind.takes(process)), None)
    if found is None:
        raise InputError(f"[process] must have Gaussian noise or categories, and {process!r} has neither")
    return found


def build_process(recipe: Recipe) -> Process | None:
    """The recipe's process; None for a score without noise levels."""
    if recipe.process is None or recipe.leaves_out:
        return None
    with naming(recipe.file, "process"), allowing(recipe.allowed):
        process: Process = build(PROCESSES, recipe.process, "process")
    return process


def build_net(recipe: Recipe, data: DataSpec, process: Process | None) -> torch.nn.Module:
    """The recipe's network, freshly initialised: what the recipe leaves out follows from the data and the
    process.
    """
    recipe = recipe.suited_to(data)
    name, model = recipe.net.get("kind"), model_kind(recipe, process)
    kinds = NETS.only([kind for kind in NETS if model.gives in NETS[kind].gives])
    accepts = inspect.signature(kinds[name]).parameters if isinstance(name, str) and name in kinds else ()
    given = model.network_sizes(process, data, recipe.model, accepts)
    if recipe.model.conditional:
        given["null_label"] = recipe.training.label_dropout > 0
    with naming(recipe.file, "net"), allowing(recipe.allowed), few_modules():
        network: torch.nn.Module = build(kinds, recipe.net, "net", given)
        if not is_own(name):
            model.check_network(describe_network(network), recipe.model, str(name))
    return network


def build_objective(recipe: Recipe, model: ModelBase) -> Objective:
    with naming(recipe.file), allowing(recipe.allowed):
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
) -> ModelBase: ...


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
) -> M | ModelBase:
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
    check_given(run, net, process)
    folder, (recipe, spec) = RunFolder(as_path(run, "a run")), read_run(run, allow)
    weights = open_weights(folder)
    return of_kind(load_model(recipe, spec, weights, net, process), kind, folder)


def check_given(run: object, net: object, process: object) -> None:
    """InputError unless these can be the path of a run, and a network and a process of the user's own or None."""
    as_path(run, "a run")
    if net is not None and not isinstance(net, torch.nn.Module):
        raise InputError(f"net must be a torch.nn.Module, the network of the run, got {brief(net)}")
    if process is not None and not isinstance(process, Process):
        raise InputError(f"process must be one such as sf.process.cosine(1000), got {brief(process)}")


def load_model(
    recipe: Recipe,
    spec: DataSpec,
    weights: WeightsFile,
    net: torch.nn.Module | None = None,
    process: Process | None = None,
) -> ModelBase:
    """The recipe's model with these weights, in evaluation mode. Nothing is allocated before the file's names, shapes
    and types are known to be those of the described network; arguments and errors as `load`.
    """
    if net is None and not is_own(recipe.net.get("kind")):
        _check_fit(meta_model(recipe, spec, process), weights)
    return fill_weights(build_model(recipe, spec, net, process), weights)


def meta_model(recipe: Recipe, spec: DataSpec, process: Process | None = None) -> ModelBase:
    """The recipe's model with its network on the meta device, where nothing is allocated."""
    return build_model(with_some_sigma(recipe), spec, process=process, device="meta")


def with_some_sigma(recipe: Recipe) -> Recipe:
    """The recipe with a number for a sigma_data that is to be estimated: neither sizes nor times depend on it."""
    estimated = recipe.model.sigma_data == "data"
    return with_overrides(recipe, {"model.sigma_data": 0.5}) if estimated else recipe


def of_kind(model: ModelBase, kind: type[M] | None, folder: RunFolder) -> M | ModelBase:
    """The model of a run. IncompatibleModel if it is of another kind than the given one."""
    if kind is not None and not isinstance(kind, type):
        raise InputError(f"kind must be a class of models, such as sf.Denoiser, got {brief(kind)}")
    if kind is None or isinstance(model, kind):
        return model
    raise IncompatibleModel(
        f"{folder.path} holds a {type(model).__name__}, and a {kind.__name__} is needed here"
    )


def open_weights(folder: RunFolder) -> WeightsFile:
    """The weights of a run. InputError where there are none, or no file that can be read."""
    try:
        return WeightsFile(folder.weights)
    except MissingFile:
        raise InputError(
            f"{folder.path} has no model.safetensors yet: train it until its first checkpoint"
        ) from None


def fill_weights(model: M, weights: WeightsFile) -> M:
    """The model with these weights, in evaluation mode. InputError where they do not fit it or are not finite."""
    _check_fit(model, weights)
    tensors = weights.load()
    check_tensors(tensors, f"{weights.path}: ")
    model.load_state_dict(tensors)
    model.eval()
    return model


def _check_fit(model: ModelBase, weights: WeightsFile) -> None:
    if (problem := misfit(model.state_dict(), weights.headers())) is not None:
        raise InputError(f"{weights.path} does not fit this run: {problem}")
