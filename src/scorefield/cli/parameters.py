"""Options that several commands share, and how they change what a run says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scorefield.cli.console import say

if TYPE_CHECKING:
    import torch

    from scorefield.data import Dataset
    from scorefield.generation.sampling import Guide
    from scorefield.runs.build import Recipe, Sampling, SamplingOptions

__all__ = [
    "Classifier",
    "Compile",
    "Device",
    "Eta",
    "Grid",
    "Guidance",
    "Json",
    "Run",
    "SamplerName",
    "Seed",
    "Settings",
    "Steps",
    "Variance",
    "load_classifier",
    "load_model",
    "note_other_data",
    "sampling_options",
    "say_caution",
    "weights_hash",
]

Run = Annotated[str, typer.Argument(metavar="RUN", help="The folder of a trained run.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Seed = Annotated[
    int, typer.Option(min=0, help="Sample i of a seed is the same image however many are asked for.")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; the fastest one found if not given.")]
SamplerName = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        help="ancestral, ddim, euler, heun, dpm-solver, dpm-solver-2s or langevin; the run's own if not given.",
    ),
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Steps of the grid; the run's own number if not given.")
]
Grid = Annotated[
    str | None,
    typer.Option(
        help="full, uniform (= trailing), quadratic, log_snr, karras, linspace, leading, ddim_quadratic, staircase (annealed Langevin), or "
        "counts such as 10,15,20."
    ),
]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Have torch.compile compile the network first: minutes, which many samples on a GPU win back.",
    ),
]
Eta = Annotated[float | None, typer.Option(help="DDIM's η, 0 (deterministic) to 1 (ancestral).")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="A=C", help="Change one value of the run's [sampling] table, such as repeats=10."
    ),
]
Variance = Annotated[str | None, typer.Option(help="Of ancestral sampling: lower, upper or learned.")]
Classifier = Annotated[str | None, typer.Option(metavar="RUN", help="Guide by the run of a classifier.")]
Guidance = Annotated[
    float | None,
    typer.Option(
        metavar="S",
        help="Scale of the guidance: by --classifier (0 is none, 1 if not given), otherwise classifier-free (1 is the model as it is).",
    ),
]


def sampling_options(
    recipe: Recipe,
    sampler: str | None,
    steps: int | None,
    grid: str | None,
    eta: float | None,
    variance: str | None,
    settings: list[str] | None = None,
    classifier: str | None = None,
    guidance: float | None = None,
) -> SamplingOptions:
    """The run's own sampling with what the command line says in its place."""
    from scorefield.runs.build import with_overrides

    options = recipe.sampling.changed(
        sampler=sampler,
        steps=steps,
        grid=grid,
        eta=eta,
        variance=variance,
        guidance=guidance,
        by_classifier=classifier is not None,
    )
    changed = recipe.model_copy(update={"sampling": options})
    return with_overrides(changed, [f"sampling.{setting}" for setting in settings or []]).sampling


def load_model(run: str, recipe: Recipe, device: torch.device, compiled: bool = False) -> Any:
    """The model of a run on this device, in that run's precision; its weights stay as they are.   compiled:
    by torch.compile.
    """
    from scorefield.runs.build import load
    from scorefield.runtime.precision import autocast_dtype

    model = load(run).to(device)
    model.autocast_dtype = autocast_dtype(recipe.training.precision, device)
    model.keep_weights()
    if compiled:
        model.compile_network()
    return model


def load_classifier(run: str | None, device: torch.device) -> Guide | None:
    """The classifier of a run; None without one. InputError for the run of anything else."""
    from scorefield.generation.sampling import Guide
    from scorefield.runs.build import read_run
    from scorefield.runtime.errors import InputError

    if run is None:
        return None
    recipe, _ = read_run(run)
    if not recipe.is_classifier:
        raise InputError(
            f"--classifier takes the run of a classifier, and {run} is a run of {recipe.name}, which makes samples"
        )
    return Guide(load_model(run, recipe, device), run, weights_hash(run))


def note_other_data(recipe: Recipe, train: Dataset) -> None:
    """Say so where a run was trained on something else. Of a stream, `train` is the first examples."""
    if recipe.trained_on is None:
        return
    found = train.fingerprint(recipe.trained_on.arrays) if train.first_of is None else train.first_of
    if found != recipe.trained_on.fingerprint:
        say(f"note: {train.source} is not what this run was trained on (fingerprint {found})")


def weights_hash(run: str) -> str:
    """The first digits of the SHA-256 of a run's weights."""
    from scorefield.runtime.weights import SHOWN, file_sha256
    from scorefield.training import RunFolder

    return file_sha256(RunFolder(Path(run)).weights)[:SHOWN]


def say_caution(sampling: Sampling) -> None:
    """What the user should know before samples are made."""
    text = sampling.caution()
    if text is not None:
        say(f"note: {text}")
