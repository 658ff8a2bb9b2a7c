"""The evaluator: metrics by name, each value with its provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from scorefield import __version__
from scorefield.core.shapes import are_images
from scorefield.data import Dataset
from scorefield.data.loading.epoch_order import permutation
from scorefield.evaluation.bits import BoundPlan, Examples, bound_figures, flow_figures
from scorefield.evaluation.catalogue import open_features, usual_features
from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.generated import Generated, GivenSets, SampledSets
from scorefield.evaluation.metric_value import MetricValue, Stamp, append_line
from scorefield.evaluation.noisy_accuracy import NoisyAccuracy
from scorefield.evaluation.reference import Reference
from scorefield.evaluation.sample_evaluator import SampleEvaluator, check_reference
from scorefield.generation.sampling import Condition, Sampling
from scorefield.models.base import Model
from scorefield.process.transitions import Variance
from scorefield.runtime.atomic import make_folder, write_error
from scorefield.runtime.checks import one_of, unwritable
from scorefield.runtime.distributed import Processes
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options
from scorefield.runtime.progress import SILENT, Reporter
from scorefield.runtime.registry import LIKELIHOODS, METRICS, SAMPLE_METRICS
from scorefield.store.outputs import check_output

_KEYS = {"held-out": "heldout", "training": "train"}  # in JSON

__all__ = [
    "AccuracyReport",
    "Evaluation",
    "EvaluationOptions",
    "EvaluationTarget",
    "evaluate",
    "evaluate_each",
]


@dataclass(frozen=True)
class EvaluationTarget:
    """What is evaluated, and where what is kept of it goes.

    Attributes:
        sampling: The model, and how it is sampled. Its labels are set here.
        train: The training examples.
        heldout: The held-out examples.
        weights: Facts about the weights for stamps, their "sha256" among them.
        folder: Of stored samples and results.jsonl; deleting it is always safe.
    """

    sampling: Sampling
    train: Dataset
    heldout: Dataset
    weights: Mapping[str, object]
    folder: Path

    @property
    def model(self) -> Model:
        """The model that is sampled."""
        return self.sampling.model

    @property
    def conditional(self) -> bool:
        """Whether labels decide what is sampled."""
        return bool(self.model.num_classes) or self.sampling.guide is not None


class EvaluationOptions(Options):
    """What to measure and how much of it.

    Attributes:
        metrics: Names of metrics, as of `Run.evaluate`.
        n: Images a set (as many as are held out if None), and examples of a likelihood (all if None;
            otherwise the first of a shuffle that is the same for every run of the data).
        sets: Generated sets, of seeds seed, seed + 1, ….
        seed: Of the first set.
        split: The examples of likelihoods.
        terms: Of the bound, see `BoundPlan`.
        bound_steps: Steps of the bound's grid, see `BoundPlan`.
        variance: Of the bound, see `BoundPlan`.
        features: Name of the feature extractor, as in `open_features`.
        reference: A file of reference statistics, used if it is there and written if not.
        samples: Judge these images, a folder or an .npz file, instead of sampling.
    """

    metrics: tuple[str, ...] = ("fd",)
    n: int | None = Field(None, ge=2, le=10_000_000)
    sets: int = Field(3, ge=1, le=10_000)
    seed: int = Field(0, ge=0)
    split: Literal["heldout", "train"] = "heldout"
    terms: int | None = Field(None, ge=2)
    bound_steps: int | None = Field(None, ge=1)
    variance: Variance | None = None
    features: str | None = None
    reference: Path | None = None
    samples: Path | None = None


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    Attributes:
        figures: In the order of the metrics.
        warnings: Sentences for the user.
    """

    figures: tuple[MetricValue, ...]
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Figures by name, each with its stamp, for JSON."""
        return {
            "figures": {figure.name: figure.as_dict() for figure in self.figures},
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class AccuracyReport(Evaluation):
    """What a classifier of noisy examples is judged by: its accuracy and cross-entropy at each noise level.

    Attributes:
        parts: By "held-out" and "training", where there are such examples.
    """

    parts: Mapping[str, NoisyAccuracy] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        """Its parts, for JSON."""
        return {_KEYS[name]: part.as_dict() for name, part in self.parts.items()}


def evaluate(
    subject: EvaluationTarget,
    options: EvaluationOptions,
    processes: Processes | None = None,
    watch: Reporter = SILENT,
    extractor: Extractor | None = None,
) -> Evaluation | None:
    """Measure the metrics, and add a line with the figures to results.jsonl in the subject's folder.

    Samples are made by all processes and stored, so that other metrics and larger sets go on with them;
    everything else is the first process's.

    Args:
        subject: What is evaluated.
        options: What to measure.
        processes: Those that share the sampling. Default: this one alone.
        watch: Receives progress reports. Default: none are made.
        extractor: Of features, in place of options.features.

    Returns:
        The figures; None on other processes than the first.

    Raises:
        InputError: Before anything is sampled, for what can be known by then.
        IncompatibleModel: The same.
    """
    results = evaluate_each([subject], options, processes, watch, extractor)
    return None if results is None else results[0]


def evaluate_each(
    subjects: Sequence[EvaluationTarget],
    options: EvaluationOptions,
    processes: Processes | None = None,
    watch: Reporter = SILENT,
    extractor: Extractor | None = None,
) -> list[Evaluation] | None:
    """`evaluate` of several subjects that differ in nothing but how they are sampled, by one judge.

    Args:
        subjects: What is evaluated.
        options: What to measure.
        processes: Those that share the sampling. Default: this one alone.
        watch: Receives progress reports. Default: none are made.
        extractor: Of features, in place of options.features.

    Returns:
        One result for each subject; None on other processes than the first.

    Raises:
        InputError: As `evaluate`.
        IncompatibleModel: As `evaluate`.
    """
    processes = processes or Processes()
    names, first = _known(options.metrics), subjects[0]
    _check_data(first)
    on_samples = [name for name in names if name in SAMPLE_METRICS]
    examples = _examples(first, options) if len(on_samples) < len(names) else None
    sets = [_sets(subject, options, on_samples[0]) if on_samples else None for subject in subjects]
    _check_folder(first.folder)
    judge = _judge(first, options, on_samples, extractor, watch) if on_samples and processes.first else None
    for generated in sets:
        if generated is not None:
            generated.make(processes, watch)
    processes.leave()
    if not processes.first:
        return None
    results = []
    for subject, generated in zip(subjects, sets, strict=True):
        figures: dict[str, list[MetricValue]] = {}
        warnings: list[str] = []
        if judge is not None and generated is not None:
            figures, warnings = judge.figures(generated, _stamp(subject, generated), watch)
        if examples is not None:
            figures |= _likelihoods(subject, options, examples, watch)
        results.append(
            Evaluation(tuple(figure for name in names for figure in figures[name]), tuple(warnings))
        )
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "scorefield": __version__,
            **results[-1].as_dict(),
        }
        append_line(subject.folder / "results.jsonl", line)
    return results


def bpd(examples: Examples, plan: BoundPlan, stamp: Stamp, watch: Reporter) -> list[MetricValue]:
    return bound_figures(examples, plan, stamp, watch)


def ode(examples: Examples, plan: BoundPlan, stamp: Stamp, watch: Reporter) -> list[MetricValue]:
    return flow_figures(examples, stamp, watch)


def _known(names: Sequence[str]) -> Sequence[str]:
    """The names, if each is a metric and none comes twice."""
    for i, name in enumerate(names):
        one_of("a metric", name, METRICS)
        if name in names[:i]:
            raise InputError(f"the metric {name} is given twice")
    if not names:
        raise InputError(f"no metric is given: choose from {', '.join(METRICS)}")
    return names


def _check_data(subject: EvaluationTarget) -> None:
    """The data must be what the model was made for."""
    found = subject.train.spec
    made_for = subject.model.data or found
    for what, a, b in (
        ("shape", made_for.shape, found.shape),
        ("range", made_for.range, found.range),
        ("bins", made_for.bins, found.bins),
        (
            "classes",
            made_for.classes if subject.conditional else (),
            found.classes if subject.conditional else (),
        ),
    ):
        if a != b:
            raise InputError(
                f"data mismatch: {subject.train.source} has {what} {b or 'none'}, "
                f"the run was trained on {what} {a or 'none'}"
            )


def _check_folder(folder: Path) -> None:
    advice = "results and samples are stored there, so copy the run to a writable folder"
    try:
        make_folder(folder)
    except OSError as error:
        raise unwritable(folder, error, advice) from None
    if (refusal := write_error(folder)) is not None:
        raise unwritable(folder, refusal, advice)


def _examples(subject: EvaluationTarget, options: EvaluationOptions) -> Examples:
    data = subject.heldout if options.split == "heldout" else subject.train
    order = torch.arange(len(data))
    if options.n is not None:
        order = torch.from_numpy(permutation(len(data), seed=0)[: options.n])
    examples = Examples(subject.model, data, order, options.split, options.seed)
    plan = _plan(subject, options)
    plan.bound(examples)  # raises now what would be raised after sampling
    if subject.model.process is not None:
        plan.grid(subject.model.process)
    return examples


def _plan(subject: EvaluationTarget, options: EvaluationOptions) -> BoundPlan:
    return BoundPlan(subject.sampling.options.clip, options.bound_steps, options.terms, options.variance)


def _sets(subject: EvaluationTarget, options: EvaluationOptions, metric: str) -> Generated:
    spec, heldout = subject.train.spec, subject.heldout
    if not are_images(spec.shape):
        raise InputError(
            f"{metric} compares images, but this run generates points of shape {spec.shape}: use scorefield plot, "
            f"or the metrics {' and '.join(LIKELIHOODS)}"
        )
    if len(heldout) < 2:
        raise InputError(
            f"metrics are compared with held-out images, and this run has {len(heldout)}: train with a larger "
            "data.holdout"
        )
    count = options.n or len(heldout)
    for name in options.metrics:
        if name in SAMPLE_METRICS and min(count, len(heldout)) < (least := SAMPLE_METRICS[name].least):
            raise InputError(
                f"{name} needs sets of at least {least} images; n is {count}, and {len(heldout)} images are held out"
            )
    if options.samples is not None:
        return GivenSets.open(options.samples, spec, count, options.sets)
    # Classes come as often as they are held out, a part of them in the same shares: a Fréchet distance also
    # measures that.
    shuffled = permutation(len(heldout), seed=0)
    labels = heldout.labels[shuffled].tolist() if subject.conditional and heldout.labels is not None else None
    arrays = heldout.arrays_at(torch.from_numpy(shuffled)) if subject.model.arrays else {}
    conditions = {
        name: Condition.of(name, array) for name, array in arrays.items() if name in subject.model.arrays
    }
    sampling = replace(subject.sampling, labels=labels, conditions=conditions)
    sampling = replace(sampling, weights=str(subject.weights["sha256"]))
    return SampledSets(sampling, subject.folder, count=count, sets=options.sets, seed=options.seed)


def _likelihoods(
    subject: EvaluationTarget, options: EvaluationOptions, examples: Examples, watch: Reporter
) -> dict[str, list[MetricValue]]:
    plan, stamp = _plan(subject, options), _stamp(subject)
    return {
        name: LIKELIHOODS[name](examples, plan, stamp, watch)
        for name in options.metrics
        if name in LIKELIHOODS
    }


def _judge(
    subject: EvaluationTarget,
    options: EvaluationOptions,
    names: Sequence[str],
    extractor: Extractor | None,
    watch: Reporter,
) -> SampleEvaluator:
    file, train = options.reference, subject.train
    if file is not None and not file.expanduser().exists():  # it will be written
        check_output(file.expanduser())
    keep = None if extractor is not None else subject.folder / "judge"
    if file is not None and file.expanduser().exists():
        reference = check_reference(Reference.load(file), file, train, extractor)
        if extractor is None:
            _check_kind(reference, file, options.features or usual_features(train, train.spec))
    if extractor is None and any(SAMPLE_METRICS[name].looks for name in names):
        with watch.progress("preparing the judge", 1) as bar:
            extractor = open_features(
                options.features, train.spec, train, lambda done, total: bar.update(done, total=total), keep
            )
    device = subject.model.device
    return SampleEvaluator.of(names, train, subject.heldout, extractor, file, device, watch, keep)


def _check_kind(reference: Reference, file: Path, features: str) -> None:
    """InputError for a reference of other features, before the classifier is trained that would give these."""
    by_classifier = reference.extractor.startswith("classifier trained on")
    if by_classifier != (features == "classifier"):
        raise InputError(
            f"{file} holds features of {reference.extractor}, but this run is evaluated with the features "
            f"{features}: choose other features, or another file",
            command="--features",
        )


def _stamp(subject: EvaluationTarget, sets: Generated | None = None) -> dict[str, Mapping[str, object]]:
    """Of figures of these sets, or of likelihoods; images that the user gave need not be the run's."""
    train = subject.train
    data = {
        "source": train.source,
        "fingerprint": train.fingerprint(),
        "training": len(train),
        "held-out": len(subject.heldout),
    }
    weights = {} if isinstance(sets, GivenSets) else {"weights": subject.weights}
    return {**({} if sets is None else {"sampling": sets.stamp}), **weights, "data": data}
