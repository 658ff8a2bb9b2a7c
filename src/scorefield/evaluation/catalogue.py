"""Feature extractors by name: what `--features` accepts."""

from __future__ import annotations

from collections.abc import Callable

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset
from scorefield.evaluation.efficientnet import imagenet_features
from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.features import train_classifier
from scorefield.evaluation.inception import inception_features
from scorefield.runtime.errors import InputError
from scorefield.runtime.registry import FEATURES

__all__ = ["open_features"]

Progress = Callable[[int, int], None]


def open_features(
    kind: str | None, spec: DataSpec, train: Dataset | None = None, progress: Progress | None = None
) -> Extractor:
    """The feature extractor of a name, for images of `spec`.

    Args:
        kind: "classifier", "imagenet" or "inception:FILE". Default: "classifier" where `train` has labels and
            its images one channel, otherwise "imagenet".
        spec: What one image is.
        train: Training data of the classifier.
        progress: Called with (steps done, steps in all) while the classifier trains.
    Raises:
        InputError: For an unknown kind, and for features that these data or this installation cannot have.
    """
    if kind is None:
        kind = (
            "classifier"
            if train is not None and train.labels is not None and spec.shape[0] == 1
            else "imagenet"
        )
    name, _, file = kind.partition(":")
    entry = f"{name}:FILE"
    make: Callable[[str, DataSpec, Dataset | None, Progress | None], Extractor] = FEATURES.find(
        entry if file and entry in FEATURES else kind
    )
    return make(file, spec, train, progress)


def classifier(file: str, spec: DataSpec, train: Dataset | None, progress: Progress | None) -> Extractor:
    if train is None:
        raise InputError(
            "the classifier's features need labelled training images, and no data is given: use imagenet instead"
        )
    return train_classifier(train, progress=progress)


def imagenet(file: str, spec: DataSpec, train: Dataset | None, progress: Progress | None) -> Extractor:
    return imagenet_features(spec)


def inception(file: str, spec: DataSpec, train: Dataset | None, progress: Progress | None) -> Extractor:
    return inception_features(file, spec)
