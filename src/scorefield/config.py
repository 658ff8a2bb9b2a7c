"""Names become objects here and nowhere else: recipes and run folders <-> TOML, one table of kinds for each concept."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file

from scorefield import nets
from scorefield.core.errors import InputError
from scorefield.core.options import Options, build, did_you_mean, parse
from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset, open_source
from scorefield.denoiser import Denoiser
from scorefield.guidance import ClipX0
from scorefield.objectives import Objective, Simple
from scorefield.process import (
    DiscreteProcess,
    GaussianProcess,
    cosine_betas,
    from_betas,
    from_sigmas,
    geometric_sigmas,
    linear_betas,
)
from scorefield.samplers import DDIM, Ancestral, Sampler
from scorefield.samplers.grids import GRIDS, full, sections
from scorefield.training import RunFolder, TrainingOptions

__all__ = [
    "Recipe",
    "SamplingOptions",
    "build_denoiser",
    "build_grid",
    "build_net",
    "build_objective",
    "build_sampling",
    "describe",
    "load",
    "open_data",
    "read_recipe",
    "read_run",
    "recipe_names",
    "with_overrides",
]


def linear(T: int = 1000, start: float = 1e-4, end: float = 0.02) -> DiscreteProcess:
    return from_betas(linear_betas(T, start, end))


def cosine(T: int = 1000, s: float = 0.008, max_beta: float = 0.999) -> DiscreteProcess:
    return from_betas(cosine_betas(T, s, max_beta))


def geometric(sigma_max: float, sigma_min: float, L: int, mean: float = 0.0, std: float = 0.0) -> DiscreteProcess:
    return from_sigmas(geometric_sigmas(sigma_max, sigma_min, L), mean, std)


def betas(betas: list[float]) -> DiscreteProcess:
    return from_betas(betas)


def sigmas(sigmas: list[float], mean: float = 0.0, std: float = 0.0) -> DiscreteProcess:
    return from_sigmas(sigmas, mean, std)


PROCESSES: dict[str, Callable[..., GaussianProcess]] = {
    "linear": linear,
    "cosine": cosine,
    "geometric": geometric,
    "betas": betas,
    "sigmas": sigmas,
}
NETS: dict[str, Callable[..., torch.nn.Module]] = {
    "mlp": nets.MLP,
    "unet": nets.UNet,
    "ddpm-unet": nets.DDPMUNet,
    "refinenet": nets.RefineNet,
}
OBJECTIVES: dict[str, Callable[..., Objective]] = {"simple": Simple}
SAMPLERS: dict[str, Callable[..., Sampler]] = {"ancestral": Ancestral, "ddim": DDIM}


class DataOptions(Options):
    """Where the examples come from. size and channels None: as the source has them (a folder: 32 × 32 RGB)."""

    source: str | None = None
    size: int | None = Field(None, ge=1)
    channels: int | None = None
    upscale: bool = False
    strict: bool = False
    range: tuple[float, float] = (-1.0, 1.0)
    holdout: float = Field(0.1, ge=0, lt=1)
    split_seed: int = Field(0, ge=0)


class ModelOptions(Options):
    """What joins network and process. conditional: the network receives the class labels of the data."""

    parametrization: str = "eps"
    variance: str | None = None
    noise_input: str = "index"
    sigma_data: float = 0.5
    conditional: bool = False


class SamplingOptions(Options):
    """How this model is sampled unless the command says otherwise. steps None: every level.  clip: x̂0 to the data's range."""

    sampler: dict[str, Any] = {"kind": "ddim"}
    grid: str = "uniform"
    steps: int | None = Field(None, ge=1)
    clip: bool = True


class TrainedOn(Options):
    """What a run was trained on, written by training."""

    source: str
    examples: int
    fingerprint: str
    shape: tuple[int, ...]
    range: tuple[float, float]
    classes: tuple[str, ...] = ()
    bins: int | None = None

    @property
    def spec(self) -> DataSpec:
        return DataSpec(self.shape, self.range, self.classes, self.bins)


class Recipe(Options):
    """One choice for each concept. A run's config.toml is its recipe with what it was trained on."""

    name: str = "custom"
    title: str = ""
    paper: str = ""
    data: DataOptions = DataOptions()
    process: dict[str, Any]
    net: dict[str, Any]
    model: ModelOptions = ModelOptions()
    objective: dict[str, Any] = {"kind": "simple"}
    training: TrainingOptions = TrainingOptions()
    sampling: SamplingOptions = SamplingOptions()
    trained_on: TrainedOn | None = None


def recipe_names() -> list[str]:
    """The recipes that come with the package, sorted."""
    return sorted(path.name.removesuffix(".toml") for path in _recipes().iterdir() if path.name.endswith(".toml"))


def read_recipe(name: str) -> Recipe:
    """A recipe by its name or from a .toml file. InputError for an unknown name, broken TOML or a wrong key."""
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"the recipe {name} cannot be read: {error}") from None
    elif name in recipe_names():
        text = (_recipes() / f"{name}.toml").read_text()
    else:
        known = recipe_names()
        raise InputError(f"there is no recipe {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}, or give a .toml file")
    try:
        return parse(Recipe, {"name": Path(name).stem, **tomllib.loads(text)})
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"the recipe {name} is not valid TOML: {error}") from None


def with_overrides(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe with `a.b=c` settings applied: c is a TOML value, or text where it is none."""
    values = recipe.model_dump()
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise InputError(f"a setting is written a.b=c, got {setting!r}")
        *path, last = key.strip().split(".")
        table = values
        for part in path:
            if not isinstance(table.get(part), dict):
                raise InputError(f"there is no table {part!r} in {key.strip()}{did_you_mean(part, [k for k in table if isinstance(table[k], dict)])}")
            table = table[part]
        table[last] = _toml_value(text.strip())
    return parse(Recipe, values)


def read_run(run: str | Path) -> tuple[Recipe, DataSpec]:
    """A run's config.toml, and what one example of its data is. InputError where there is no run or the file is broken."""
    folder = RunFolder(Path(run))
    recipe = parse(Recipe, folder.read_config())
    if recipe.trained_on is None:
        raise InputError(f"{folder.config} does not say what the run was trained on: its [trained_on] table is missing")
    return recipe, recipe.trained_on.spec


def open_data(options: DataOptions) -> tuple[Dataset, Dataset]:
    """(training, held-out) examples, in the range that the recipe asks for."""
    if options.source is None:
        raise InputError("this recipe needs data of yours: give --data with a folder of images, an .npz file or hf:NAME")
    data = open_source(
        options.source, size=options.size, channels=options.channels, upscale=options.upscale, strict=options.strict
    )
    if data.spec.bins is not None:
        data = replace(data, spec=replace(data.spec, range=options.range))
    return data.split(options.holdout, options.split_seed)


def build_denoiser(recipe: Recipe, data: DataSpec, net: torch.nn.Module | None = None) -> Denoiser:
    """The recipe's model for this data, its network freshly initialised unless given."""
    process = build(PROCESSES, recipe.process, "process")
    if recipe.model.conditional and not data.classes:
        raise InputError("this recipe is class-conditional, but the data has no labels: use --set model.conditional=false")
    options = recipe.model.model_dump(exclude={"conditional"})
    return Denoiser(net or build_net(recipe, data), process, data=data, **options)


def build_net(recipe: Recipe, data: DataSpec) -> torch.nn.Module:
    """The recipe's network for this data, freshly initialised."""
    if recipe.net.get("kind") == "custom":
        raise InputError("this run's network is not one of scorefield's: load it from Python with sf.load(run, net=your_network)")
    heads = 1 if recipe.model.variance is None else 2
    given = {
        "in_channels": data.shape[0],
        "out_channels": heads * data.shape[0],
        "dim": data.dimensions,
        "out_dim": heads * data.dimensions,
    }
    if recipe.model.conditional:
        given["num_classes"] = data.num_classes
    network: torch.nn.Module = build(NETS, recipe.net, "net", given)
    return network


def build_objective(recipe: Recipe, model: Denoiser) -> Objective:
    objective: Objective = build(OBJECTIVES, recipe.objective, "objective", {"model": model})
    return objective


def build_sampling(options: SamplingOptions, model: Denoiser) -> tuple[Sampler, torch.Tensor, Callable[[Any], Any]]:
    """(sampler, grid, the wrapper that clips or does nothing)."""
    sampler = build(SAMPLERS, options.sampler, "sampling.sampler")
    return sampler, build_grid(options, model.process), ClipX0 if options.clip else lambda wrapped: wrapped


def build_grid(options: SamplingOptions, process: GaussianProcess) -> torch.Tensor:
    """The grid by its name, "full", or the published respacing written as counts: "10,15,20"."""
    name = options.grid
    if name == "full" or (options.steps is None and name in GRIDS):
        return full(process)
    if name in GRIDS and options.steps is not None:
        return GRIDS[name](process, options.steps)
    if name.replace(",", "").isdigit():
        return sections(process, [int(count) for count in name.split(",")])
    known = ["full", *GRIDS]
    raise InputError(f"grid must be one of {', '.join(known)}, or counts of sections such as 10,15,20; got {name!r}{did_you_mean(name, known)}")


def load(run: str | Path, net: torch.nn.Module | None = None) -> Denoiser:
    """The model of a run with its averaged weights, in evaluation mode. The run describes itself.

    net: the network, needed only where it is not one of scorefield's.
    """
    folder, (recipe, spec) = RunFolder(Path(run)), read_run(run)
    model = build_denoiser(recipe, spec, net)
    try:
        model.load_state_dict(load_file(folder.weights))
    except FileNotFoundError:
        raise InputError(f"{folder.path} has no model.safetensors yet: train it until its first checkpoint") from None
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{folder.weights} does not fit this run: {str(error).splitlines()[0]}") from None
    return model.eval()


def _recipes() -> Any:
    return files("scorefield") / "recipes"


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def describe(recipe: Recipe) -> Mapping[str, Any]:
    """The tables of a recipe that training's own description of its objects lacks."""
    return recipe.model_dump(include={"name", "title", "paper", "data", "sampling"})
