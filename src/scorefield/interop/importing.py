"""Import of a checkpoint of another implementation as an ordinary run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from scorefield.generation.sampling import build_sampling
from scorefield.generation.sampling_options import SamplingOptions
from scorefield.interop import ddpm, diffusers, guided_diffusion, improved_diffusion, ncsn
from scorefield.interop.cards import card, cards_of
from scorefield.interop.fit import Either, Original, Shapes, fit, shapes_of
from scorefield.interop.state_dicts import read_weights
from scorefield.models.denoiser import Denoiser
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.nets import DDPMUNet
from scorefield.runtime import description
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import parse
from scorefield.runtime.reading import as_path
from scorefield.runtime.registry import ORIGINS
from scorefield.store.run_folder import RunFolder, fitting_name
from scorefield.training.checkpoint import save_weights

__all__ = ["Imported", "Request", "import_run", "write_run"]


@dataclass(frozen=True)
class Imported:
    """What a run is written from when it is imported.

    Attributes:
        model: Its network has a `config`, and it knows its data.
        name: As in a recipe.
        title: As in a recipe.
        paper: As in a recipe.
        source: What the weights were read from.
        fingerprint: Of the source.
        notes: What was done on the way that a reader should know.
        sampling: As in a recipe.
        objective: As in a recipe.
    """

    model: Denoiser | NoisyClassifier
    name: str
    title: str
    paper: str
    source: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    sampling: Mapping[str, object] = field(default_factory=dict)
    objective: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What a user says about a checkpoint."""

    path: Path
    card: str | None = None
    flags: Mapping[str, object] = field(default_factory=dict)
    classifier: bool = False


Describe = Callable[[Mapping[str, object], Shapes], Original[Either]]


def import_run(
    origin: str,
    path: str | Path,
    run: str | Path,
    *,
    card: str | None = None,
    flags: Mapping[str, object] | None = None,
    classifier: bool = False,
) -> Imported:
    """Read a checkpoint of another implementation and write it as a new run, as `scorefield import` does.

    Args:
        origin: The implementation: "guided-diffusion", "improved-diffusion", "ddpm", "ncsn" or "diffusers".
        path: The checkpoint's file, or a folder of diffusers.
        run: The folder to make.
        card: Name of a published checkpoint, whose flags are known.
        flags: Names and values of the original scripts, alone or in place of the card's.
        classifier: Whether the checkpoint is a classifier; a card knows.

    Returns:
        What the run was written from: its model, and notes on what a reader should know.

    Raises:
        InputError: For a file that cannot be read or would run code, flags that do not describe it, and a
            `run` that is not free.
    """
    read: Callable[[Request], Imported] = ORIGINS.find(origin, "the origin")
    path, run = as_path(path, "a checkpoint"), as_path(run, "a run")
    RunFolder(run).check_free()
    imported = read(Request(path, card, flags or {}, classifier))
    if isinstance(
        imported.model, Denoiser
    ):  # a run that could not be sampled is refused before it is written
        options = parse(SamplingOptions, imported.sampling, "sampling")
        build_sampling(options, imported.model).check()
    write_run(imported, run)
    return imported


def write_run(imported: Imported, run: Path) -> None:
    """Make the folder of a run with these weights, completely or not at all.

    Raises:
        InputError: Where it is not free or cannot be written.
    """
    with RunFolder(run).whole() as folder:
        save_weights(folder.weights, imported.model.state_dict())
        folder.write_config(_description(imported))


def _description(imported: Imported) -> dict[str, object]:
    """The run's config.toml."""
    model = imported.model
    data = model.data
    if data is None:
        raise InputError("a run stores the shape of an example, but this model has no data")
    seen = {"source": imported.source, "examples": 0, "fingerprint": imported.fingerprint}
    return {
        "name": imported.name,
        "title": imported.title,
        "paper": imported.paper,
        "data": {"size": data.shape[-1], "channels": data.shape[0], "range": list(data.range)},
        "process": dict(model.process.config),
        "net": description.describe(model.net),
        "model": model.config,
        "objective": dict(imported.objective),
        **({"sampling": dict(imported.sampling)} if imported.sampling else {}),
        "trained_on": {
            **seen,
            "shape": list(data.shape),
            "range": list(data.range),
            "classes": list(data.classes),
            "bins": data.bins,
        },
    }


def _read(
    origin: str, paper: str, describe: Describe, request: Request, describe_classifier: Describe | None = None
) -> Imported:
    """A checkpoint file of a repository whose flags `describe` understands."""
    entry = None if request.card is None else card(origin, request.card)
    if request.classifier or (entry is not None and entry.is_classifier):
        if describe_classifier is None:
            raise InputError(f"{origin} has no classifiers: remove classifier", command="--classifier")
        describe = describe_classifier
    weights = read_weights(request.path)
    shapes = shapes_of(weights.tensors)
    same = cards_of(origin, shapes)
    known = (
        f"its parameter names and shapes match the card {' or '.join(same)}"
        if same
        else "no card has these parameter names and shapes"
    )
    if entry is None and not request.flags:
        raise InputError(
            f"the network in {request.path} is not known: give card or flags; {known}",
            command="--card NAME or --flags",
        )
    original = describe({**(entry.flags if entry else {}), **request.flags}, shapes)
    try:
        model = fit(original, weights.tensors)
    except InputError as error:
        raise InputError(f"{request.path}: {error}; {known}") from None
    name = fitting_name(Path(request.card or request.path).stem)
    return Imported(
        model,
        name,
        title=f"{origin}, {name}",
        paper=paper,
        source=f"the {origin} checkpoint {request.path.name}",
        fingerprint=f"sha256:{weights.sha256}",
        notes=(*weights.notes, *([] if entry else _alike(original, describe, origin, same, shapes))),
        sampling=original.sampling,
        objective=original.objective,
    )


def _alike(
    original: Original[Either], describe: Describe, origin: str, names: list[str], shapes: Shapes
) -> list[str]:
    """A note where published weights of these names and shapes have flags that no file tells: attention
    order, schedule.
    """
    own, notes = _meaning(original), []
    for name in names:
        other = _meaning(describe(card(origin, name).flags, shapes))
        differs = sorted(key for key in own if own[key] != other.get(key))
        if not differs:
            return []
        notes.append(
            f"the card {name} has the same names and shapes and differs in {', '.join(differs)}, which cannot be "
            "read from the file"
        )
    return notes


def _meaning(original: Original[Either]) -> dict[str, object]:
    """What changes the results of a network with given weights."""
    model = original.model
    net = {
        name: value
        for name, value in description.describe(model.net).items()
        if name not in ("dropout", "checkpoint")
    }
    return {**net, **model.config, "process": model.process.config}


def _read_diffusers(request: Request) -> Imported:
    """A folder of diffusers, which describes itself."""
    if request.card or request.flags or request.classifier:
        raise InputError("a diffusers folder describes itself: remove card, flags and classifier")
    read, name = (
        diffusers.read_folder(request.path),
        fitting_name(os.path.basename(os.path.realpath(request.path))),
    )
    return Imported(
        read.model,
        name,
        title=f"diffusers, {name}",
        paper=_DDPM if isinstance(read.model.net, DDPMUNet) else "",
        source=f"the diffusers weights {name}/{read.weights}",
        fingerprint=f"sha256:{read.sha256}",
        notes=read.notes,
        sampling=read.sampling,
        objective={"kind": "hybrid" if read.model.variance else "simple", "weighting": "network"},
    )


_ADM = "Diffusion Models Beat GANs (Dhariwal & Nichol 2021)"
_IDDPM = "Improved DDPM (Nichol & Dhariwal 2021)"
_DDPM = "DDPM (Ho et al. 2020)"
_NCSN = "NCSN (Song & Ermon 2019)"

GUIDED_DIFFUSION = partial(
    _read,
    "guided-diffusion",
    _ADM,
    guided_diffusion.describe,
    describe_classifier=guided_diffusion.describe_classifier,
)
IMPROVED_DIFFUSION = partial(_read, "improved-diffusion", _IDDPM, improved_diffusion.describe)
DDPM = partial(_read, "ddpm", _DDPM, ddpm.describe)
NCSN = partial(_read, "ncsn", _NCSN, ncsn.describe)
DIFFUSERS = _read_diffusers
