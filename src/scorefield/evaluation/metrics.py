"""Metrics of samples, each computed on generated and on held-out images at the same count."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.data import Dataset
from scorefield.data.loading.epoch_order import permutation
from scorefield.evaluation.copies import copying_ratio
from scorefield.evaluation.frechet import frechet_distance
from scorefield.evaluation.inception_score import Score, inception_score
from scorefield.evaluation.kernel import kernel_distance
from scorefield.evaluation.metric_value import MetricValue, Stamp
from scorefield.evaluation.precision_and_recall import PrecisionRecall, precision_recall
from scorefield.evaluation.reference import Reference
from scorefield.evaluation.statistics import COPIED_PIXELS, COPIED_WITHIN, PALETTE_WITHIN, SetStatistics
from scorefield.runtime.errors import InputError

__all__ = ["COPIES", "FD", "IS", "KID", "PALETTE", "PR", "MetricInputs", "SampleMetric"]

_NEAREST = (
    0.01  # held-out images nearer to the training set than all others: below their distance a sample is near
)
_UNLIKE = 0.02  # total variation of class proportions from which the user is warned
_SPLITS, _NEIGHBOURS = 10, 3  # the papers' own
_OVER_SETS = "standard deviation over sets"


@dataclass(frozen=True)
class MetricInputs:
    """What metrics are computed from.

    Attributes:
        sets: Statistics of generated sets, all of one size.
        heldout: Statistics of the held-out images, by the same extractor.
        data: The held-out images themselves, for their classes.
        reference: Of the training images; None where no metric needs one.
    """

    sets: Sequence[SetStatistics]
    heldout: SetStatistics
    data: Dataset
    reference: Reference | None

    def __post_init__(self) -> None:
        counts = sorted({one.count for one in self.sets})
        if len(counts) != 1:
            raise InputError(
                f"the generated sets must be of one size, got {' and '.join(map(str, counts)) or 'none'}"
            )
        if counts[0] < 2:
            raise InputError(f"a generated set must be at least 2 images, got {counts[0]}")

    @property
    def real(self) -> Reference:
        if self.reference is None:
            raise InputError("this metric needs reference statistics")
        return self.reference


@dataclass(frozen=True)
class SampleMetric:
    """A metric of samples.

    Attributes:
        measure: (inputs, provenance) -> values.
        keep: What `compute_statistics` must keep for it.
        compares: Whether it compares with a reference.
        warn: Inputs -> warnings for the user.
        looks: Whether it is computed from features; where no metric is, no extractor is made.
        least: Images that a set must have.
    """

    measure: Callable[[MetricInputs, Stamp], list[MetricValue]]
    keep: frozenset[str]
    compares: bool
    warn: Callable[[MetricInputs], list[str]]
    looks: bool = True
    least: int = 2


def _fd(judged: MetricInputs, stamp: Stamp) -> list[MetricValue]:
    """Fréchet distance, distance to the nearest training image, the fraction of near copies, class agreement.

    near: the fraction of all samples nearer to a training image than 99 % of held-out images are; about 0.01
    for new images, and counts copies where they are too few to move a median.
    """
    distances = [frechet_distance(one.moments, judged.real.moments) for one in judged.sets]
    heldout = frechet_distance(judged.heldout.moments, judged.real.moments)
    usual = _nearest(judged.heldout)
    medians = [copying_ratio(_nearest(one), usual) * float(usual.quantile(0.5)) for one in judged.sets]
    near = float(
        (torch.cat([_nearest(one) for one in judged.sets]) < usual.quantile(_NEAREST)).double().mean()
    )
    label = "Fréchet distance to the training images"
    figures = [
        _figure("fd", "frechet", label, distances, stamp, heldout=heldout, ratio=True),
        _figure(
            "fd",
            "nearest",
            "distance to the nearest training image (median)",
            medians,
            stamp,
            heldout=float(usual.quantile(0.5)),
            ratio=True,
        ),
        MetricValue(
            "fd",
            "near",
            "nearer to one than 99 % of held-out images",
            near,
            stamp,
            heldout=_NEAREST,
            unit="%",
        ),
    ]
    agreed = [one.agreement for one in judged.sets if one.agreement is not None]
    if agreed:
        label, known = "agreement with the requested class", judged.heldout.agreement
        figures.append(
            MetricValue("fd", "agreement", label, statistics.fmean(agreed), stamp, heldout=known, unit="%")
        )
    return figures


def _kid(judged: MetricInputs, stamp: Stamp) -> list[MetricValue]:
    real = _features(judged.real.features)
    found = [kernel_distance(_features(one.features), real) for one in judged.sets]
    heldout = kernel_distance(_features(judged.heldout.features), real).mean
    label = "kernel distance to the training images"
    one = (found[0].std, "standard deviation over subsets")
    return [_figure("kid", "kid", label, [value.mean for value in found], stamp, one, heldout=heldout)]


def _pr(judged: MetricInputs, stamp: Stamp) -> list[MetricValue]:
    real = _features(judged.real.features)
    found = [precision_recall(_features(one.features), real, _NEIGHBOURS) for one in judged.sets]
    heldout = precision_recall(_features(judged.heldout.features), real, _NEIGHBOURS)
    ways: dict[str, tuple[str, Callable[[PrecisionRecall], float]]] = {
        "precision": ("share of samples near training images", lambda value: value.precision),
        "recall": ("share of training images near samples", lambda value: value.recall),
    }
    return [
        _figure(
            "pr",
            name,
            f"{name} (k = {_NEIGHBOURS}): {what}",
            [part(value) for value in found],
            stamp,
            heldout=part(heldout),
            unit="%",
        )
        for name, (what, part) in ways.items()
    ]


def _is(judged: MetricInputs, stamp: Stamp) -> list[MetricValue]:
    splits = min(_SPLITS, judged.sets[0].count, judged.heldout.count)
    found = [_score(one, splits) for one in judged.sets]
    one = (found[0].std, "standard deviation over splits")
    label, heldout = f"Inception Score ({splits} splits)", _score(judged.heldout, splits).mean
    return [
        _figure("is", "inception_score", label, [score.mean for score in found], stamp, one, heldout=heldout)
    ]


def _copies(judged: MetricInputs, stamp: Stamp) -> list[MetricValue]:
    labels = {
        "copies": f"copies of a training image (every value within {COPIED_WITHIN} of 255)",
        "copies_but": f"the same, but for at most {COPIED_PIXELS} pixels",
    }
    ways: dict[str, Callable[[SetStatistics], float]] = {
        "copies": lambda seen: _mean(seen.copied),
        "copies_but": lambda seen: _mean(seen.copied_but),
    }
    return [
        _figure(
            "copies",
            name,
            labels[name],
            [share(one) for one in judged.sets],
            stamp,
            heldout=share(judged.heldout),
            unit="%",
        )
        for name, share in ways.items()
    ]


def _palette(judged: MetricInputs, stamp: Stamp) -> list[MetricValue]:
    label = f"pixels within {PALETTE_WITHIN} of 255 of a training colour"
    shares = [_mean(one.in_palette) for one in judged.sets]
    heldout = _mean(judged.heldout.in_palette)
    return [_figure("palette", "palette", label, shares, stamp, heldout=heldout, unit="%")]


def _mean(values: Tensor | None) -> float:
    if values is None:
        raise InputError("the images were not compared with the training images' pixels")
    return float(values.double().mean())


def _figure(
    metric: str,
    name: str,
    label: str,
    values: Sequence[float],
    stamp: Stamp,
    one: tuple[float | None, str] = (None, ""),
    *,
    heldout: float | None,
    ratio: bool = False,
    unit: str = "",
) -> MetricValue:
    """The mean over sets.

    Args:
        metric: The metric, as it is asked for.
        name: Of the figure in results.
        label: Of the figure for people.
        values: One value for each set.
        stamp: How they came about.
        one: The error, and of what it is, where there is one set only.
        heldout: The value of held-out images, or None.
        ratio: Whether it is a ratio.
        unit: Of the values.
    """
    mean = statistics.fmean(values)
    error, error_of = (statistics.stdev(values), _OVER_SETS) if len(values) > 1 else one
    over = mean / heldout if ratio and heldout is not None and heldout > 0 else None
    return MetricValue(
        metric, name, label, mean, stamp, error, error_of, heldout, over, unit, {"sets": list(values)}
    )


def _score(seen: SetStatistics, splits: int) -> Score:
    """The score of the images in a fixed random order: a split of images in the order of their classes would
    hold few of them.
    """
    if seen.log_probs is None:
        raise InputError("the Inception Score needs class probabilities, and these features come without")
    return inception_score(seen.log_probs[permutation(seen.count, seed=0)], splits)


def _features(features: Tensor | None) -> Tensor:
    if features is None:
        raise InputError(
            "the reference holds only moments of the features: compute it again, or use fd alone"
        )
    return features


def _nearest(seen: SetStatistics) -> Tensor:
    if seen.nearest is None:
        raise InputError("the distances to the training images were not kept")
    return seen.nearest


def _of_covariances(judged: MetricInputs) -> list[str]:
    reference, held, count = judged.real.moments, judged.heldout.moments, judged.sets[0].count
    found = [reference.warning("training images"), held.warning("held-out images")]
    found.append(judged.sets[0].moments.warning("generated sets"))
    if count != held.count:
        found.append(
            f"the sets have {count} samples and {held.count} images are held out: Fréchet distances fall with the "
            f"count, so the ratio is too {'low' if count > held.count else 'high'}; use sets of {held.count}"
        )
    return [text for text in found if text is not None]


def _of_counts(judged: MetricInputs) -> list[str]:
    count, held = judged.sets[0].count, judged.heldout.count
    if count == held:
        return []
    return [
        f"the sets have {count} samples and {held} images are held out: precision and recall depend on the "
        f"count; use sets of {held}"
    ]


def _of_classes(judged: MetricInputs) -> list[str]:
    unlike = max(_variation(one.labels, judged.data) for one in judged.sets)
    if unlike <= _UNLIKE:
        return []
    return [
        "the proportions of the requested labels differ from those of the held-out images by up to "
        f"{unlike:.0%}, which alone raises the Fréchet distance; use the held-out images' labels"
    ]


def _variation(labels: Tensor | None, data: Dataset) -> float:
    """½ Σ_y |p(y) - q(y)| between the classes of `labels` (N,) and of the data; 0 where either has none."""
    if data.labels is None or labels is None:
        return 0.0
    p, q = (
        torch.bincount(y, minlength=data.spec.num_classes).double() / len(y) for y in (labels, data.labels)
    )
    return float((p - q).abs().sum() / 2)


FD = SampleMetric(
    _fd, frozenset({"nearest"}), True, lambda judged: _of_covariances(judged) + _of_classes(judged)
)
KID = SampleMetric(_kid, frozenset({"features"}), True, _of_classes)
IS = SampleMetric(_is, frozenset({"log_probs"}), False, lambda judged: [])
PR = SampleMetric(
    _pr,
    frozenset({"features"}),
    True,
    lambda judged: _of_counts(judged) + _of_classes(judged),
    least=_NEIGHBOURS + 1,
)
COPIES = SampleMetric(_copies, frozenset({"copied"}), False, lambda judged: [], looks=False)
PALETTE = SampleMetric(_palette, frozenset({"palette"}), False, lambda judged: [], looks=False)
