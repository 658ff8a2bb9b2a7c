"""Accuracy and cross-entropy of a noisy classifier at each noise level."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scorefield.core.noise import NoiseSource
from scorefield.data import Dataset
from scorefield.models.base import Classifier, ClassifierModel
from scorefield.models.foreign import as_classifier
from scorefield.process.base import GaussianProcess
from scorefield.runtime.checks import instance_of, numbers, positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.grids import uniform

__all__ = ["NoisyAccuracy", "noisy_accuracy"]

_LEVELS = 20


@dataclass(frozen=True)
class NoisyAccuracy:
    """Figures at each level, least noisy first; errors are standard errors over the examples.

    Attributes:
        times: t.
        ratios: σ_t/α_t.
        accuracy: How often the likeliest class is y.
        accuracy_error: Standard error of `accuracy`.
        cross_entropy: The mean of −ln p(y | x_t) in nats.
        cross_entropy_error: Standard error of `cross_entropy`.
        examples: How many were looked at.
        chance: The accuracy of who knows how often each class comes and does not look. A classifier of pure
            noise can do no better.
        entropy: The cross-entropy of the same, in nats. A larger one means that the classifier is surer than
            right.
    """

    times: tuple[float, ...]
    ratios: tuple[float, ...]
    accuracy: tuple[float, ...]
    accuracy_error: tuple[float, ...]
    cross_entropy: tuple[float, ...]
    cross_entropy_error: tuple[float, ...]
    examples: int
    chance: float
    entropy: float

    def as_dict(self) -> dict[str, object]:
        """Every figure, for JSON."""
        return dataclasses.asdict(self)


def noisy_accuracy(
    classifier: Classifier,
    data: Dataset,
    times: Sequence[float] | Tensor | None = None,
    noise: NoiseSource | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    batch_size: int = 256,
) -> NoisyAccuracy:
    """Accuracy and cross-entropy of a classifier at x_t = α_t x_0 + σ_t ε, at each of `times`.

    Args:
        classifier: (x_t, t) -> logits (B, K) with a `process`: a NoisyClassifier in evaluation mode, or an exact
            one of the oracle.
        data: Labelled examples, by the names of the classifier's classes where it has a `data`.
        times: 0 < t ≤ T. Default: the smallest, and 20 evenly spaced up to T (all of them where there are fewer).
        noise: Each example has its own at every level, so neither the batch nor the order matters. Default:
            NoiseSource(0).
        progress: Called with (levels done, levels in all).
        batch_size: Examples in memory at a time.
    Raises:
        InputError: For data without labels or with classes that the classifier does not know, and for times
            outside (0, T].
        IncompatibleModel: For a classifier that does not say which noise levels it was made for.
    """
    judge = as_classifier(classifier)
    labels, process = _labels(judge, data), judge.process
    if not isinstance(process, GaussianProcess):
        raise IncompatibleModel(
            "the accuracy is measured at the noise levels of the classifier's `process`, and this classifier has "
            "none"
        )
    positive_int("batch_size", batch_size)
    chosen = sorted(set(_times(process) if times is None else _checked(times)))
    if not chosen or chosen[0] <= 0:
        raise InputError(f"accuracy is measured at times 0 < t ≤ {process.T}, got {chosen}")
    level = process.level(torch.tensor(chosen))
    draws = (
        NoiseSource(0)
        if noise is None
        else instance_of("noise", noise, NoiseSource, "a sf.noise.NoiseSource")
    )
    rows = []
    for k, t in enumerate(chosen):
        hits, nats = _judge(judge, process, data, labels, t, draws.at(k), batch_size)
        rows.append((*_mean(hits), *_mean(nats)))
        if progress is not None:
            progress(k + 1, len(chosen))
    accuracy, accuracy_error, cross_entropy, cross_entropy_error = zip(*rows, strict=True)
    shares = torch.bincount(labels).double() / len(labels)
    return NoisyAccuracy(
        tuple(chosen),
        tuple(level.ratio.tolist()),
        accuracy,
        accuracy_error,
        cross_entropy,
        cross_entropy_error,
        examples=len(labels),
        chance=float(shares.max()),
        entropy=float(torch.special.entr(shares).sum()),
    )


def _labels(classifier: ClassifierModel, data: Dataset) -> Tensor:
    """The labels as indices of the classifier's classes, (N,)."""
    instance_of("data", data, Dataset, "labelled examples, such as sf.data.digits()")
    if data.labels is None or not len(data):
        raise InputError(
            f"{data.source}: accuracy needs labelled examples; there are {len(data)}, without labels"
        )
    of_model = classifier.data
    if of_model is None or of_model.classes in ((), data.spec.classes):
        return data.labels
    labels = data.numbered_as(of_model.classes).labels
    return data.labels if labels is None else labels


def _checked(times: Sequence[float] | Tensor) -> list[float]:
    numbers("times", times)
    return list(torch.as_tensor(times).flatten().tolist())  # integers stay integers


def _times(process: GaussianProcess) -> list[float]:
    if not process.is_discrete:
        return uniform(process, _LEVELS)[:-1].tolist()
    levels = int(process.T)
    return [1, *uniform(process, min(_LEVELS, levels))[:-1].tolist()]


@torch.no_grad()
def _judge(
    classifier: ClassifierModel,
    process: GaussianProcess,
    data: Dataset,
    labels: Tensor,
    t: float,
    noise: NoiseSource,
    batch_size: int,
) -> tuple[Tensor, Tensor]:
    """(1 where the likeliest class is y, −ln p(y | x_t)) of every example, (N,) float64."""
    hits, nats = [], []
    for indices in torch.arange(len(data)).split(batch_size):
        x0, y = data.batch(indices)[0], labels[indices]
        x_t = process.sample(x0, t, noise.of(indices).normal_like(x0))
        logits = classifier(x_t.to(classifier.device), t).cpu().double()
        hits.append(logits.argmax(dim=1) == y)
        nats.append(F.cross_entropy(logits, y, reduction="none"))
    return torch.cat(hits).double(), torch.cat(nats)


def _mean(values: Tensor) -> tuple[float, float]:
    """The mean and its standard error."""
    return float(values.mean()), float(values.std(correction=0)) / math.sqrt(len(values))
