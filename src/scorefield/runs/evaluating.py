"""The evaluation of a run: its samples, its likelihoods, or the accuracy of its classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch

from scorefield.core.noise import NoiseSource
from scorefield.data import Dataset
from scorefield.data.loading.epoch_order import permutation
from scorefield.evaluation import (
    AccuracyReport,
    Evaluation,
    EvaluationOptions,
    EvaluationTarget,
    evaluate_each,
    noisy_accuracy,
)
from scorefield.evaluation.extractors import Extractor
from scorefield.models.noisy_classifier import NoisyClassifier
from scorefield.runs.build import open_data
from scorefield.runs.opened import OpenedRun, SamplingKeywords, note
from scorefield.runtime.checks import brief, check_length, is_list, number
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import parse
from scorefield.runtime.progress import SILENT, Bar, Reporter, check_reporter
from scorefield.runtime.registry import SAMPLE_METRICS
from scorefield.runtime.weights import SHOWN

__all__ = ["EvaluateKeywords", "evaluate_run", "run_data"]

_COMPARED = 0.1  # of the training images of a run that held none out, in the place of held-out ones
_EXAMPLES = 2000  # of a classifier's evaluation: a standard error of at most 1.1 %


class EvaluateKeywords(SamplingKeywords, total=False):
    """How a run is evaluated, as `Run.evaluate` explains it."""

    n: int | None
    sets: int
    seed: int
    split: Literal["heldout", "train"]
    data: str | None
    samples: str | Path | None
    features: str | None
    extractor: Extractor | None
    reference: str | Path | None
    terms: int | None
    bound_steps: int | None
    processes: Processes | None
    progress: Reporter


def evaluate_run(
    run: OpenedRun,
    metrics: str | Sequence[str] | None,
    guidance: float | Sequence[float] | None,
    options: EvaluateKeywords,
) -> Evaluation | list[Evaluation]:
    """What `Run.evaluate` does; arguments and errors are explained there."""
    if metrics is not None and not isinstance(metrics, str) and not is_list(metrics):
        raise InputError(f'metrics must be names, such as ["fd", "pr"], got {brief(metrics)}')
    names = [name.strip() for name in metrics.split(",")] if isinstance(metrics, str) else metrics
    if run.recipe.is_classifier:
        return _accuracy(run, names, guidance, options)
    if run.recipe.model.low_res is not None:
        raise InputError(
            f"{run.path} is a super-resolution run, which has no metrics yet: look at samples of low_res "
            "images",
            command="scorefield sample RUN --low-res FILE",
        )
    check_length("guidance", guidance)
    several = guidance is not None and not isinstance(guidance, int | float)
    scales = list(guidance) if isinstance(guidance, Sequence) else [guidance]
    wanted = {name: options[name] for name in _WANTED if name in options}  # type: ignore[literal-required]
    asked = parse(
        EvaluationOptions, {"metrics": names or (("fd", "pr") if len(scales) > 1 else ("fd",)), **wanted}
    )
    _check_scales(scales, asked)
    processes, progress = (
        options.get("processes") or Processes(),
        check_reporter(options.get("progress", SILENT)),
    )
    # What one process alone cannot open, or opens otherwise, none goes on without.
    targets = processes.on_all(
        lambda: _targets(run, asked.metrics, scales, options, processes, progress),
        "opening the run and its data",
    )
    processes.check_same(lambda: _facts(targets, asked), "comparing what is measured")
    found = evaluate_each(targets, asked, processes, progress, options.get("extractor"))
    results = [Evaluation((), ()) for _ in scales] if found is None else found
    return results if several else results[0]


def _targets(
    run: OpenedRun,
    metrics: Sequence[str],
    scales: Sequence[float | None],
    options: EvaluateKeywords,
    processes: Processes,
    progress: Reporter,
) -> list[EvaluationTarget]:
    """The run and its data, with each way to sample it."""
    how = {name: options[name] for name in _HOW if name in options}  # type: ignore[literal-required]
    how.setdefault("device", processes.device if options.get("processes") else None)
    ways = [run.sampling(guidance=scale, progress=progress, **how) for scale in scales]
    note(ways[0].caution(), progress)
    train, heldout = run_data(run, options.get("data"), progress)
    if not len(heldout) and len(train) > 1 and all(name in SAMPLE_METRICS for name in metrics):
        # Distances between images of the two parts still say how near images of the data are to each other.
        train, heldout = train.split(_COMPARED, run.recipe.data.split_seed)
        progress.say(
            f"note: this run has no held-out images: {len(heldout):,} of its training images take their place, "
            f"and samples are compared with the others; copies of these {len(heldout):,} are not detected"
        )
    decay = None if run.step is None else run.recipe.training.ema
    trained = run.recipe.trained_on
    weights = {
        "average": "EMA" if trained is None or trained.average is None else trained.average,
        "decay": decay,
        "step": run.step,
        "sha256": run.weights_sha256[:SHOWN],
    }
    return [EvaluationTarget(way, train, heldout, weights, run.path / "evaluation") for way in ways]


def _facts(targets: Sequence[EvaluationTarget], asked: EvaluationOptions) -> dict[str, object]:
    """What the processes of an evaluation must have alike."""
    sampled = {f"scale {k}": target.sampling.identity(asked.seed) for k, target in enumerate(targets)}
    return {**asked.model_dump(), **sampled}


def run_data(
    run: OpenedRun, source: str | None = None, progress: Reporter = SILENT
) -> tuple[Dataset, Dataset]:
    """(training, held-out) examples of a run, with labels in its numbering.

    Args:
        run: The run.
        source: Where the data is now. Default: as in training.
        progress: Is told where the data is not what the run was trained on.

    Raises:
        InputError: Where the data cannot be opened.
    """
    options = run.recipe.data
    train, heldout = open_data(options if source is None else options.model_copy(update={"source": source}))
    trained_on = run.recipe.trained_on
    if trained_on is None:
        return train, heldout
    arrays = [name for name in trained_on.arrays if name in train.array_names]
    found = train.fingerprint(arrays) if train.first_of is None else train.first_of
    if found != trained_on.fingerprint:
        progress.say(f"note: {train.source} is not what this run was trained on (fingerprint {found})")
    return _numbered_as(train, trained_on.classes, progress), _numbered_as(heldout, trained_on.classes)


def _numbered_as(data: Dataset, classes: Sequence[str], progress: Reporter = SILENT) -> Dataset:
    """The data with their labels in the run's numbering; as they are where their classes are not the run's."""
    try:
        found = data.numbered_as(classes)
    except InputError:  # raised later, where labels matter to the run
        return data
    own = data.spec.classes
    if found is not data and not set(own) <= set(classes):
        progress.say(
            f"note: the classes of the run have no names: 0 is taken to be {own[0]}, {len(own) - 1} to be "
            f"{own[-1]}"
        )
    return found


def _accuracy(
    run: OpenedRun, metrics: Sequence[str] | None, guidance: object, options: EvaluateKeywords
) -> AccuracyReport:
    """The figures of a classifier on n examples of each part, which hold all classes in about their shares."""
    of_samples = [options.get("samples"), options.get("classifier"), options.get("autoguidance")]
    if metrics is not None or guidance is not None or any(of_samples):
        raise InputError(
            "a classifier is evaluated by its accuracy: metrics, samples, guidance, classifier and autoguidance apply to "
            "generative models only"
        )
    progress, seed = check_reporter(options.get("progress", SILENT)), options.get("seed", 0)
    train, heldout = run_data(run, options.get("data"), progress)
    model = run.model(options.get("device"), options.get("precision"), kind=NoisyClassifier)
    parts = {}
    for name, part in (("held-out", heldout), ("training", train)):
        if not len(part):
            continue
        first = permutation(len(part), seed=0)[: options.get("n") or _EXAMPLES]
        chosen = part.subset(torch.from_numpy(first))
        with progress.progress(f"{name} examples", 1) as bar:
            parts[name] = noisy_accuracy(model, chosen, noise=NoiseSource(seed), progress=_told(bar))
    return AccuracyReport((), (), parts)


def _check_scales(scales: Sequence[float | None], options: EvaluationOptions) -> None:
    """InputError for scales that are no finite numbers, and where several would give the same figures."""
    numbers = [number("guidance", scale) for scale in scales if scale is not None]
    if not scales or len(set(numbers)) < len(numbers):
        raise InputError(f"guidance takes finite numbers, each once; got {numbers}")
    if len(scales) < 2:
        return
    if options.samples is not None:
        raise InputError(
            "samples are given, so they are not sampled at several scales: give at most one guidance scale, or "
            "remove samples",
            command="--samples",
        )
    unguided = [name for name in options.metrics if name not in SAMPLE_METRICS]
    if unguided:
        raise InputError(f"{' and '.join(unguided)} ignore guidance: compute them without guidance")


_WANTED = (
    "n",
    "sets",
    "seed",
    "split",
    "terms",
    "bound_steps",
    "variance",
    "features",
    "reference",
    "samples",
)
_HOW = (
    "sampler",
    "steps",
    "grid",
    "eta",
    "variance",
    "settings",
    "classifier",
    "autoguidance",
    "device",
    "precision",
    "compiled",
)


def _told(bar: Bar) -> Callable[[int, int], None]:
    return lambda done, total: bar.update(done, total=total)
