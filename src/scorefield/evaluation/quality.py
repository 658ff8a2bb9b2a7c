"""How good are a model's samples? Generated sets are judged beside held-out images, by the same figures at the same count."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset
from scorefield.evaluation.copies import copying_ratio, nearest_distances
from scorefield.evaluation.features import FeatureNet, batches
from scorefield.evaluation.frechet import Moments, frechet_distance

__all__ = ["Generate", "Quality", "quality"]

Generate = Callable[[int], tuple[Tensor, Tensor | None]]
_NEAREST = 0.01  # held-out images nearer to the training set than all others: below their distance a sample is near
_UNLIKE = 0.02  # total variation of class proportions from which the user is told
_REFERENCES = 4096  # training images in memory as floats at a time


@dataclass(frozen=True)
class Quality:
    """Figures of several generated sets, and those of held-out images. Distances in pixels are in the units of spec.range.

    features: what the Fréchet distances were measured in.   count: samples in each set.   train_count, heldout_count: images.
    frechet: the distance of each set to the training images.   frechet_heldout: that of the held-out images.
    agreement: the fraction of all samples that the classifier puts in the class asked for, None without labels.
    accuracy: the fraction of held-out images it puts in theirs.
    copying: for each set, the median distance of samples to their nearest training image over nearest_heldout, the median
    of held-out images.   near: the fraction of all samples nearer to a training image than 99 % of held-out images are;
    about 0.01 for new images, and counts copies where they are too few to move a median.
    warnings: sentences for the user.
    """

    features: str
    count: int
    train_count: int
    heldout_count: int
    frechet: tuple[float, ...]
    frechet_heldout: float
    agreement: float | None
    accuracy: float
    copying: tuple[float, ...]
    nearest_heldout: float
    near: float
    warnings: tuple[str, ...] = ()

    @property
    def frechet_mean(self) -> float:
        return statistics.fmean(self.frechet)

    @property
    def frechet_std(self) -> float | None:
        """The standard deviation over sets (n - 1), None for one set."""
        return _spread(self.frechet)

    @property
    def frechet_ratio(self) -> float:
        """The mean over sets, over the held-out distance: 1 is as near to the training images as new real ones."""
        return self.frechet_mean / self.frechet_heldout if self.frechet_heldout > 0 else float("inf")

    @property
    def nearest_mean(self) -> float:
        """The samples' median distance to their nearest training image, mean over sets."""
        return self.copying_ratio * self.nearest_heldout

    @property
    def copying_ratio(self) -> float:
        """Mean over sets: about 1 for new images, 0 for copies."""
        return statistics.fmean(self.copying)

    @property
    def copying_std(self) -> float | None:
        """The standard deviation of the copying ratio over sets (n - 1), None for one set."""
        return _spread(self.copying)

    def as_dict(self) -> dict[str, Any]:
        """Every figure, for JSON."""
        derived = ("frechet_mean", "frechet_std", "frechet_ratio", "nearest_mean", "copying_ratio", "copying_std")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in derived} | {"sets": len(self.frechet)}


class _Measured(NamedTuple):
    """One set: its size, Fréchet distance, distances to the training images (N,), hits (N,) where it has labels, and how unlike
    the held-out images' class proportions its own are (total variation)."""

    size: int
    frechet: float
    nearest: Tensor
    hits: Tensor | None
    unlike: float


def quality(generate: Generate, train: Dataset, heldout: Dataset, classifier: FeatureNet, sets: int = 5) -> Quality:
    """Judge `sets` generated sets by Fréchet distance, class agreement and copying, next to held-out images.

    generate(k): the k-th set, x0 (N, *shape) in spec.range on any device and labels int64 (N,) or None. One set is in
    memory at a time. Make N the number of held-out images (a part of them where that is too many), and ask a conditional
    model for their own labels: Fréchet distances fall with the count, and class features see the proportions of classes
    first (random labels alone double the distance of 360 digits). There is a warning where either differs.

    Samples are rounded to the data's levels, as they are when written, and as the images they are compared with have been;
    those of continuous data are clamped to spec.range.
    InputError: no sets, no held-out images, a classifier of other data, sets that are not finite or not of one size.
    """
    if sets < 1:
        raise InputError(f"there must be at least one generated set, got sets = {sets}")
    if len(heldout) < 2:
        raise InputError(f"{train.source}: samples are judged next to held-out images, and {len(heldout)} are: hold out a part")
    if classifier.spec != train.spec or heldout.spec != train.spec:
        raise InputError(f"{classifier.name}: the classifier, training and held-out images must be of the same data")
    usual = _nearest(torch.cat(list(batches(heldout))), train)
    copying_ratio(usual, usual)  # held-out images that cannot serve as reference are found before anything is sampled
    accuracy, reference = classifier.accuracy(heldout), _moments(train, classifier)
    measured: list[_Measured] = []
    for k in range(sets):
        measured.append(_measure(generate(k), train, heldout, reference, classifier))
        if measured[k].size != measured[0].size:
            raise InputError(f"the generated sets must be of one size, got {measured[0].size} and {measured[k].size} samples")
    held = _moments(heldout, classifier)
    hits = [one.hits for one in measured if one.hits is not None]
    return Quality(
        features=classifier.name,
        count=measured[0].size,
        train_count=len(train),
        heldout_count=len(heldout),
        frechet=tuple(one.frechet for one in measured),
        frechet_heldout=frechet_distance(held, reference),
        agreement=float(torch.cat(hits).double().mean()) if hits else None,
        accuracy=accuracy,
        copying=tuple(copying_ratio(one.nearest, usual) for one in measured),
        nearest_heldout=float(usual.quantile(0.5)),
        near=float((torch.cat([one.nearest for one in measured]) < usual.quantile(_NEAREST)).double().mean()),
        warnings=_warnings(measured[0].size, held, reference, max(one.unlike for one in measured)),
    )


def _measure(
    made: tuple[Tensor, Tensor | None], train: Dataset, heldout: Dataset, reference: Moments, classifier: FeatureNet
) -> _Measured:
    x0, labels = made
    if tuple(x0.shape[1:]) != train.spec.shape or len(x0) < 2:
        raise InputError(
            f"a generated set must be at least 2 images (N, {', '.join(map(str, train.spec.shape))}), got {tuple(x0.shape)}"
        )
    if labels is not None and tuple(labels.shape) != (len(x0),):
        raise InputError(f"a generated set of {len(x0)} images has labels of shape {tuple(labels.shape)}, expected one each")
    if labels is not None and not 0 <= int(labels.min()) <= int(labels.max()) < train.spec.num_classes:
        raise InputError(
            f"generated labels run from {int(labels.min())} to {int(labels.max())}, of {train.spec.num_classes} classes"
        )
    x0 = _as_written(x0.detach().to("cpu", torch.float32), train.spec)
    distance = frechet_distance(Moments().update(classifier.features(x0)), reference)
    hits = None if labels is None else classifier.predict(x0) == labels.cpu()
    unlike = 0.0 if labels is None else _variation(labels.cpu(), heldout)
    return _Measured(len(x0), distance, _nearest(x0, train), hits, unlike)


def _variation(labels: Tensor, data: Dataset) -> float:
    """½ Σ_y |p(y) - q(y)| between the classes of `labels` (N,) and of the data."""
    if data.labels is None:
        return 0.0
    classes = data.spec.num_classes
    p, q = (torch.bincount(y, minlength=classes).double() / len(y) for y in (labels, data.labels))
    return float((p - q).abs().sum() / 2)


def _as_written(x0: Tensor, spec: DataSpec) -> Tensor:
    return x0.clamp(*spec.range) if spec.bins is None else spec.from_levels(spec.to_levels(x0))


def _nearest(x0: Tensor, train: Dataset) -> Tensor:
    """The distance of each image (N, *shape) to its nearest training image, float64 (N,)."""
    return torch.stack([nearest_distances(x0, part) for part in batches(train, _REFERENCES)]).amin(dim=0)


def _moments(data: Dataset, classifier: FeatureNet) -> Moments:
    moments = Moments()
    for x0 in batches(data):
        moments.update(classifier.features(x0))
    return moments


def _warnings(count: int, held: Moments, reference: Moments, unlike: float) -> tuple[str, ...]:
    found = [reference.warning("training images"), held.warning("held-out images")]
    if count <= held.dimension < held.count:
        found.append(f"generated sets: {count} samples are too few; use at least {held.dimension + 1}")
    if unlike > _UNLIKE:
        found.append(
            f"the labels asked for differ from the held-out images' proportions by up to {unlike:.0%}, which alone raises the "
            f"Fréchet distance; ask for the held-out images' own labels"
        )
    if count != held.count:
        found.append(
            f"the sets have {count} samples and {held.count} images are held out: Fréchet distances fall with the count, "
            f"so their ratio {'flatters' if count > held.count else 'is unfair to'} the samples; make sets of {held.count}"
        )
    return tuple(text for text in found if text is not None)


def _spread(values: tuple[float, ...]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
