"""scorefield evaluate"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scorefield.cli import console
from scorefield.cli.accuracy import evaluate_classifier
from scorefield.cli.console import print_json, print_table, say
from scorefield.cli.options import (
    Classifier,
    Device,
    Eta,
    Grid,
    Guidance,
    Json,
    Run,
    SamplerName,
    Seed,
    Settings,
    Steps,
    Variance,
    load_classifier,
    sampling_options,
)

if TYPE_CHECKING:
    import torch

    from scorefield.config import Recipe, SamplingOptions
    from scorefield.evaluation import Evaluation, Figure, Subject


def evaluate(
    run: Run,
    metrics: Annotated[
        str,
        typer.Option(
            help="fd (Fréchet distance, class agreement, copies), kid (kernel distance), is (Inception Score), pr (precision and "
            "recall), bpd (the variational bound), ode (the likelihood of the probability flow): one or more, with commas."
        ),
    ] = "fd",
    data: Annotated[str | None, typer.Option(help="Where the data is now; where it was in training if not given.")] = None,
    split: Annotated[str, typer.Option(metavar="heldout|train", help="The images of bpd and ode.")] = "heldout",
    samples: Annotated[
        Path | None, typer.Option(metavar="DIR|NPZ", help="Judge these images instead of sampling the run.")
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="classifier|imagenet|inception:FILE",
            help="What images are compared in; a classifier of the training images where they are grey and have labels, if not given.",
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Statistics of the training images: used if FILE is there, written if it is not."),
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", min=2, help="Images a set, as many as are held out if not given; images of bpd and ode.")
    ] = None,
    sets: Annotated[int, typer.Option(min=1, help="Generated sets, for the mean and the spread.")] = 3,
    sampler: SamplerName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    variance: Variance = None,
    settings: Settings = None,
    classifier: Classifier = None,
    guidance: Guidance = None,
    bound_steps: Annotated[
        int | None, typer.Option(min=1, help="Steps of the bound on a uniform grid; every level if not given.")
    ] = None,
    terms: Annotated[
        int | None, typer.Option(min=2, help="Estimate the bound from so many of its terms, drawn for each image.")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Judge a run by figures, each with the stamp of what it was measured with.

    Samples are judged beside held-out real images. They are stored in RUN/evaluation as they are made, and reused by other metrics
    and larger -n; an interrupted evaluation goes on where it was. Deleting that folder is always safe. --variance is also that of
    the bound. Figures are added to RUN/evaluation/results.jsonl.

    Of a classifier's run: its accuracy and cross-entropy at each noise level, on at most -n held-out and training examples.
    """
    from scorefield.config import read_run
    from scorefield.core.errors import InputError
    from scorefield.core.options import parse
    from scorefield.core.processes import join_processes
    from scorefield.evaluation import EvaluationOptions
    from scorefield.evaluation import evaluate as measure

    recipe, _ = read_run(run)
    if recipe.classifies:
        if metrics != "fd" or samples is not None or classifier is not None:
            raise InputError(
                "a classifier is judged by its accuracy: --metrics, --samples and --classifier are for what makes samples"
            )
        evaluate_classifier(run, recipe, data, n, seed, device, as_json)
        return
    if recipe.model.low_res is not None:
        raise InputError(
            f"{run} enlarges images, and there are no figures of that: see its samples, by scorefield sample --low-res"
        )
    sampling = sampling_options(recipe, sampler, steps, grid, eta, variance, settings, classifier, guidance)
    wanted: dict[str, Any] = {"n": n, "sets": sets, "seed": seed, "split": split, "terms": terms, "bound_steps": bound_steps}
    wanted |= {"variance": variance, "features": features, "reference": reference, "samples": samples}
    options = parse(EvaluationOptions, {"metrics": [name.strip() for name in metrics.split(",")], **wanted})
    processes = join_processes(device)
    subject = _subject(run, recipe, sampling, data, classifier, processes.device)
    try:
        result = measure(subject, options, processes, watch=console)
    except KeyboardInterrupt:
        say(f"the samples that were made stay in {subject.folder}: the same command goes on from there")
        raise
    if result is not None:
        _report(run, subject.folder, result, as_json)


def _subject(
    run: str, recipe: Recipe, sampling: SamplingOptions, data: str | None, classifier: str | None, device: torch.device
) -> Subject:
    """The run's model on its device, how it is sampled, and its data."""
    from scorefield.config import build_sampling, load, open_data
    from scorefield.core.compute import autocast_dtype
    from scorefield.evaluation import Subject
    from scorefield.training import RunFolder

    model = load(run).to(device)
    model.autocast_dtype = autocast_dtype(recipe.training.precision, device)
    guide = load_classifier(classifier, device)
    built = build_sampling(sampling, model, guide)
    options = recipe.data if data is None else recipe.data.model_copy(update={"source": data})
    train, heldout = open_data(options)
    if recipe.trained_on is not None and train.fingerprint() != recipe.trained_on.fingerprint:
        say(f"note: {options.source} is not what this run was trained on (fingerprint {train.fingerprint()})")
    found = _weights(run)
    weights = {"average": "EMA", "decay": None if found["step"] is None else recipe.training.ema, **found}
    guided = {} if classifier is None else {"classifier": {"run": classifier, **_weights(classifier)}}
    folder = RunFolder(Path(run)).path / "evaluation"
    return Subject(model, built, sampling, train, heldout, weights, folder, **guided)


def _weights(run: str) -> dict[str, Any]:
    """The step of a run's weights, where its newest checkpoint tells, and the first digits of their SHA-256."""
    from scorefield.evaluation.weights import SHOWN, file_sha256
    from scorefield.training import RunFolder

    folder = RunFolder(Path(run))
    steps = sorted(int(path.name.removeprefix("step-")) for path in folder.checkpoints.glob("step-*") if path.is_dir())
    return {"step": steps[-1] if steps else None, "sha256": file_sha256(folder.weights)[:SHOWN]}


def _report(run: str, folder: Path, result: Evaluation, as_json: bool) -> None:
    """Warnings, the picture of the bound, then the figures: a table under each stamp, or JSON."""
    from scorefield.evaluation.figure import grouped, stamp_lines
    from scorefield.plots import draw_bound, save_figure

    for warning in result.warnings:
        say(f"warning: {warning}")
    pictures = {}
    for figure in result.figures:
        if "terms" in figure.parts:
            target = folder.parent / "figures" / "bound.png"
            target.parent.mkdir(exist_ok=True)
            save_figure(draw_bound(figure, run), target)
            pictures[figure.name] = str(target)
            say(f"wrote {target}")
    if as_json:
        print_json({"run": run, **result.as_dict(), "pictures": pictures})
    else:
        for figures, stamp in grouped(result.figures):
            _print_table(figures)
            print("\n".join(stamp_lines(stamp)))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    say(f"{folder} holds {_size(size)} of samples and figures; nothing depends on it")


def _print_table(figures: Sequence[Figure]) -> None:
    beside = any(figure.heldout is not None for figure in figures)
    headers = ("", "samples", "held-out images", "ratio") if beside else ("", figures[0].unit)
    print_table(headers, [_row(figure)[: len(headers)] for figure in figures])
    for text in dict.fromkeys(figure.error_of for figure in figures if figure.error is not None):
        print(f"±: {text}")


def _row(figure: Figure) -> tuple[str, str, str, str]:
    if figure.unit == "%":
        show = "{:.1%}".format
        error = "" if figure.error is None else f" ± {100 * figure.error:.1f}"
        return figure.label, show(figure.value) + error, "" if figure.heldout is None else show(figure.heldout), ""
    digits = _digits(figure)
    value, error, heldout = (_number(x, digits) for x in (figure.value, figure.error, figure.heldout))
    return figure.label, value + (f" ± {error}" if error else ""), heldout, _number(figure.ratio, 3)


def _number(x: float | None, digits: int) -> str:
    return "" if x is None else f"{x:.1e}" if 0 < abs(x) < 1e-6 else f"{x:.{digits}f}"


def _digits(figure: Figure) -> int:
    """Decimals that show three digits of the smaller of the value and its held-out figure, three at least and eight at the most."""
    sizes = [abs(x) for x in (figure.value, figure.heldout) if x]
    return min(max(3, 2 - math.floor(math.log10(min(sizes)))), 8) if sizes else 3


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
