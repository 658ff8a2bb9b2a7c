"""scorefield evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from scorefield.cli import console
from scorefield.cli.accuracy import report_accuracy
from scorefield.cli.console import say
from scorefield.cli.metric_tables import report, report_scales
from scorefield.cli.parameters import (
    Allow,
    Device,
    Json,
    RunFolder,
    SamplingFlags,
    Seed,
    with_sampling_flags,
)
from scorefield.evaluation import AccuracyReport
from scorefield.runs.run import Run
from scorefield.runtime.distributed import join_processes
from scorefield.runtime.registry import FEATURES, LIKELIHOODS, SAMPLE_METRICS

_MEASURES = {
    "fd": "Fréchet distance, class agreement, copies",
    "kid": "kernel distance",
    "is": "Inception Score",
    "pr": "precision and recall",
    "copies": "copies of training images, by pixels",
    "palette": "colours of the training images",
    "bpd": "the variational bound",
    "ode": "the likelihood by the probability-flow ODE",
}
_MEASURED = (*SAMPLE_METRICS, *LIKELIHOODS)
Metrics = Annotated[
    str | None,
    typer.Option(
        help=", ".join(f"{name} ({_MEASURES[name]})" if name in _MEASURES else name for name in _MEASURED)
        + ": one, or several separated by commas. Default: fd, and fd,pr for several guidance scales."
    ),
]
Data = Annotated[str | None, typer.Option(help="Data location. Default: as in training.")]
Split = Annotated[
    str, typer.Option(metavar="heldout|train", help="Images on which bpd and ode are computed.")
]
Samples = Annotated[
    Path | None, typer.Option(metavar="DIR|NPZ", help="Evaluate these images instead of sampling the run.")
]
Features = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(FEATURES),
        help="Feature extractor for fd, kid and pr. Default: a classifier trained on the training images if these "
        "are greyscale and labelled, otherwise imagenet.",
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Reference statistics of the training images: read from FILE if it exists, otherwise computed and "
        "written to it.",
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "-n", min=2, help="Images per set (default: size of the held-out split), and images for bpd and ode."
    ),
]
Sets = Annotated[
    int, typer.Option(min=1, help="Number of generated sets; mean and standard deviation are over these.")
]
Scales = Annotated[
    str | None,
    typer.Option(
        metavar="S[,S…]",
        help="Guidance scale: by --classifier (0 is none, default 1), by --autoguidance (1 is none), otherwise "
        "classifier-free (1 is the conditional model). Several scales give a table and a figure of the metrics against the scale.",
    ),
]
BoundSteps = Annotated[
    int | None, typer.Option(min=1, help="Steps of the bound on a uniform grid. Default: every level.")
]
Terms = Annotated[
    int | None, typer.Option(min=2, help="Estimate the bound from this many random terms per image.")
]


@with_sampling_flags
def evaluate(
    run: RunFolder,
    flags: SamplingFlags,
    metrics: Metrics = None,
    data: Data = None,
    split: Split = "heldout",
    samples: Samples = None,
    features: Features = None,
    reference: Reference = None,
    n: Count = None,
    sets: Sets = 3,
    guidance: Scales = None,
    bound_steps: BoundSteps = None,
    terms: Terms = None,
    seed: Seed = 0,
    device: Device = None,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Evaluate a run. Every metric is printed with the settings, weights and data that it was computed with.

    Metrics of samples are printed next to those of held-out images. Samples are stored in RUN/evaluation and
    reused by other metrics, by a larger -n and after an interruption; that folder can be deleted at any time.
    --variance also sets the variance of the bound. Results are appended to RUN/evaluation/results.jsonl.

    With several scales, as in --guidance 0,0.5,1,2,4,10, the sets of all scales have the same seeds, and
    RUN/figures/guidance.png shows fidelity against diversity.

    A classifier is evaluated by its accuracy and cross-entropy at each noise level, on at most -n held-out and
    training examples.

    From Python: sf.Run(RUN).evaluate("fd,pr")
    """
    source, scales, processes = Run(run, allow or ()), _scales(guidance), join_processes(device)
    folder = source.path / "evaluation"
    try:
        found = source.evaluate(
            metrics,
            scales if scales is None or len(scales) > 1 else scales[0],
            data=data,
            split=cast(Literal["heldout", "train"], split),  # which is checked where it is used
            samples=samples,
            features=features,
            reference=reference,
            n=n,
            sets=sets,
            bound_steps=bound_steps,
            terms=terms,
            seed=seed,
            device=processes.device,
            processes=processes,
            progress=console,
            **flags.keywords(),
        )
    except KeyboardInterrupt:
        if folder.is_dir():
            say(f"the samples computed so far are kept in {folder}: run the same command again to continue")
        raise
    if not processes.first:
        return
    if isinstance(found, AccuracyReport):
        report_accuracy(source, found, data, seed, as_json)
    elif isinstance(found, list):
        report_scales(run, folder, dict(zip(scales or (), found, strict=True)), as_json)
    else:
        report(run, folder, found, as_json)


def _scales(guidance: str | None) -> list[float] | None:
    """The scales of --guidance. A usage error for what is no list of numbers."""
    if guidance is None:
        return None
    try:
        return [float(scale) for scale in guidance.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--guidance takes numbers separated by commas, such as 0,0.5,1,2; got {guidance!r}"
        ) from None
