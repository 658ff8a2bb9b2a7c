"""scorefield evaluate"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scorefield.cli import console
from scorefield.cli.accuracy import evaluate_classifier
from scorefield.cli.console import say
from scorefield.cli.metric_tables import report, report_scales
from scorefield.cli.parameters import (
    Classifier,
    Device,
    Eta,
    Grid,
    Json,
    Run,
    SamplerName,
    Seed,
    Settings,
    Steps,
    Variance,
    load_classifier,
    load_model,
    note_other_data,
    sampling_options,
    say_caution,
    weights_hash,
)

if TYPE_CHECKING:
    import torch

    from scorefield.evaluation import Evaluation, EvaluationOptions, EvaluationTarget
    from scorefield.runs.build import Recipe, SamplingOptions
    from scorefield.runtime.distributed import Processes


Metrics = Annotated[
    str | None,
    typer.Option(
        help="fd (Fréchet distance, class agreement, copies), kid (kernel distance), is (Inception Score), pr (precision and "
        "recall), bpd (the variational bound), ode (the likelihood of the probability flow): one or more, with commas; fd if "
        "not given, fd,pr at several scales of guidance."
    ),
]
Data = Annotated[
    str | None, typer.Option(help="Where the data is now; where it was in training if not given.")
]
Split = Annotated[str, typer.Option(metavar="heldout|train", help="The images of bpd and ode.")]
Samples = Annotated[
    Path | None, typer.Option(metavar="DIR|NPZ", help="Judge these images instead of sampling the run.")
]
Features = Annotated[
    str | None,
    typer.Option(
        metavar="classifier|imagenet|inception:FILE",
        help="What images are compared in; a classifier of the training images where they are grey and have labels, if not given.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Statistics of the training images: used if FILE is there, written if it is not."
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "-n", min=2, help="Images a set, as many as are held out if not given; images of bpd and ode."
    ),
]
Sets = Annotated[int, typer.Option(min=1, help="Generated sets, for the mean and the spread.")]
Scales = Annotated[
    str | None,
    typer.Option(
        metavar="S[,S…]",
        help="Scale of the guidance: by --classifier (0 is none, 1 if not given), otherwise classifier-free (1 is the model as it "
        "is). At several scales the figures are printed and drawn against them.",
    ),
]
BoundSteps = Annotated[
    int | None, typer.Option(min=1, help="Steps of the bound on a uniform grid; every level if not given.")
]
Terms = Annotated[
    int | None,
    typer.Option(min=2, help="Estimate the bound from so many of its terms, drawn for each image."),
]


def evaluate(
    run: Run,
    metrics: Metrics = None,
    data: Data = None,
    split: Split = "heldout",
    samples: Samples = None,
    features: Features = None,
    reference: Reference = None,
    n: Count = None,
    sets: Sets = 3,
    sampler: SamplerName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    variance: Variance = None,
    settings: Settings = None,
    classifier: Classifier = None,
    guidance: Scales = None,
    bound_steps: BoundSteps = None,
    terms: Terms = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Judge a run by figures, each with the stamp of what it was measured with.

    Samples are judged beside held-out real images. They are stored in RUN/evaluation as they are made, and
    reused by other metrics and larger -n; an interrupted evaluation goes on where it was. Deleting that
    folder is always safe. --variance is also that of the bound. Figures are added to
    RUN/evaluation/results.jsonl.

    At several scales, --guidance 0,0.5,1,2,4,10, every set is of the same seeds, and RUN/figures/guidance.png
    shows fidelity against diversity.

    Of a classifier's run: its accuracy and cross-entropy at each noise level, on at most -n held-out and
    training examples.
    """
    from scorefield.evaluation import EvaluationOptions
    from scorefield.runs.build import read_run
    from scorefield.runtime.distributed import join_processes
    from scorefield.runtime.parsing import parse

    recipe, _ = read_run(run)
    if recipe.is_classifier:
        _check_classifier_options(metrics, samples, classifier)
        evaluate_classifier(run, recipe, data, n, seed, device, as_json)
        return
    _check_makes_images(run, recipe)
    scales = _scales(guidance)
    ways = [
        sampling_options(recipe, sampler, steps, grid, eta, variance, settings, classifier, scale)
        for scale in scales
    ]
    names = _names(metrics, "fd,pr" if len(scales) > 1 else "fd")
    wanted: dict[str, Any] = {
        "n": n,
        "sets": sets,
        "seed": seed,
        "split": split,
        "terms": terms,
        "bound_steps": bound_steps,
    }
    wanted |= {"variance": variance, "features": features, "reference": reference, "samples": samples}
    options = parse(EvaluationOptions, {"metrics": names, **wanted})
    _check_scales(scales, options)
    processes = join_processes(device)
    subjects = _subjects(run, recipe, ways, data, classifier, processes.device)
    results = _measured(subjects, options, processes)
    if results is None:  # not the first process
        return
    if len(scales) > 1:
        report_scales(run, subjects[0].folder, dict(zip(scales, results, strict=True)), as_json)
    else:
        report(run, subjects[0].folder, results[0], as_json)


def _measured(
    subjects: list[EvaluationTarget], options: EvaluationOptions, processes: Processes
) -> list[Evaluation] | None:
    """The figures, on the first process; who stops it is told that nothing is lost."""
    from scorefield.evaluation import evaluate_each

    try:
        return evaluate_each(subjects, options, processes, watch=console)
    except KeyboardInterrupt:
        say(f"the samples that were made stay in {subjects[0].folder}: the same command goes on from there")
        raise


def _names(metrics: str | None, usual: str) -> list[str]:
    """The metrics of --metrics, with commas, or the usual ones."""
    return [name.strip() for name in (usual if metrics is None else metrics).split(",")]


def _check_classifier_options(metrics: str | None, samples: Path | None, classifier: str | None) -> None:
    """InputError for options that mean nothing for a classifier's run."""
    from scorefield.runtime.errors import InputError

    if metrics is not None or samples is not None or classifier is not None:
        raise InputError(
            "a classifier is judged by its accuracy: --metrics, --samples and --classifier are for what makes samples"
        )


def _check_makes_images(run: str, recipe: Recipe) -> None:
    """InputError for a run that enlarges images."""
    from scorefield.runtime.errors import InputError

    if recipe.model.low_res is not None:
        raise InputError(
            f"{run} is a super-resolution run, which has no metrics yet: look at samples of `scorefield sample --low-res`"
        )


def _scales(guidance: str | None) -> list[Any]:
    """The scales of --guidance, or None alone. A usage error for what is no list of different numbers."""
    if guidance is None:
        return [None]
    try:
        scales = [float(scale) for scale in guidance.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--guidance takes numbers with commas, such as 0,0.5,1,2; got {guidance!r}"
        ) from None
    if not all(map(math.isfinite, scales)) or len(set(scales)) < len(scales):
        raise typer.BadParameter(f"--guidance takes finite numbers, each once; got {guidance!r}")
    return scales


def _check_scales(scales: list[Any], options: EvaluationOptions) -> None:
    """InputError where several scales would give the same figures."""
    from scorefield.runtime.errors import InputError
    from scorefield.runtime.registry import SAMPLE_METRICS

    if len(scales) < 2:
        return
    if options.samples is not None:
        raise InputError(
            "--samples are as they are: give --guidance one scale at the most, or leave --samples out"
        )
    unguided = [name for name in options.metrics if name not in SAMPLE_METRICS]
    if unguided:
        raise InputError(f"{' and '.join(unguided)} ignore guidance: ask for them without --guidance")


def _subjects(
    run: str,
    recipe: Recipe,
    ways: list[SamplingOptions],
    data: str | None,
    classifier: str | None,
    device: torch.device,
) -> list[EvaluationTarget]:
    """The run's model on its device and its data, with each way to sample it."""
    from scorefield.evaluation import EvaluationTarget
    from scorefield.runs.build import build_sampling, open_data
    from scorefield.training import RunFolder

    model = load_model(run, recipe, device)
    guide = load_classifier(classifier, device)
    built = [build_sampling(sampling, model, guide) for sampling in ways]
    say_caution(built[0])
    options = recipe.data if data is None else recipe.data.model_copy(update={"source": data})
    train, heldout = open_data(options)
    note_other_data(recipe, train)
    found = _weights(run)
    weights = {"average": "EMA", "decay": None if found["step"] is None else recipe.training.ema, **found}
    folder = RunFolder(Path(run)).path / "evaluation"
    return [EvaluationTarget(sampling, train, heldout, weights, folder) for sampling in built]


def _weights(run: str) -> dict[str, Any]:
    """The step of a run's weights, where its newest checkpoint tells, and the first digits of their SHA-256."""
    from scorefield.training import RunFolder

    folder = RunFolder(Path(run))
    steps = sorted(
        int(path.name.removeprefix("step-")) for path in folder.checkpoints.glob("step-*") if path.is_dir()
    )
    return {"step": steps[-1] if steps else None, "sha256": weights_hash(run)}
