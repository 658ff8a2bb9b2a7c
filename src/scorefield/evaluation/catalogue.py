"""Feature extractors by name: what `--features` accepts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset
from scorefield.evaluation.efficientnet import imagenet_features
from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.features import load_classifier, train_classifier
from scorefield.evaluation.inception import inception_features
from scorefield.runtime.atomic import make_folder
from scorefield.runtime.errors import InputError
from scorefield.runtime.registry import FEATURES

__all__ = ["open_features", "usual_features"]

Progress = Callable[[int, int], None]


def open_features(
    kind: str | None,
    spec: DataSpec,
    train: Dataset | None = None,
    progress: Progress | None = None,
    keep: Path | None = None,
) -> Extractor:
    """The feature extractor of a name, for images of `spec`.

    Args:
        kind: "classifier", "imagenet" or "inception:FILE". Default: "classifier" where `train` has labels and
            its images one channel, otherwise "imagenet".
        spec: What one image is.
        train: Training data of the classifier.
        progress: Called with (steps done, steps in all) while the classifier trains.
        keep: A folder, in one that is there, where the classifier is kept, and found again for the same data. Default: it is trained anew.
    Raises:
        InputError: For an unknown kind, and for features that these data or this installation cannot have.
    """
    kind = usual_features(train, spec) if kind is None else kind
    name, _, file = kind.partition(":")
    entry = f"{name}:FILE"
    make: Callable[[str, DataSpec, Dataset | None, Progress | None, Path | None], Extractor] = FEATURES.find(
        entry if file and entry in FEATURES else kind
    )
    return make(file, spec, train, progress, keep)


def usual_features(train: Dataset | None, spec: DataSpec) -> str:
    """What is used where no features are named."""
    labelled = train is not None and train.labels is not None
    return "classifier" if labelled and spec.shape[0] == 1 else "imagenet"


def classifier(
    file: str, spec: DataSpec, train: Dataset | None, progress: Progress | None, keep: Path | None
) -> Extractor:
    if train is None:
        raise InputError(
            "the classifier's features need labelled training images, and no data is given: use imagenet instead"
        )
    if keep is None:
        return train_classifier(train, progress=progress)
    path = keep / f"classifier-{_digest(train)}.safetensors"
    try:
        return load_classifier(path, train.spec)
    except InputError:  # not there, or damaged
        found = train_classifier(train, progress=progress)
    make_folder(keep)
    found.save(path)
    return found


def _digest(data: Dataset) -> str:
    """Of everything about the data that a classifier of them depends on."""
    spec = data.spec
    said = repr((data.fingerprint(), spec.shape, spec.range, spec.bins, spec.num_classes))
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def imagenet(
    file: str, spec: DataSpec, train: Dataset | None, progress: Progress | None, keep: Path | None
) -> Extractor:
    return imagenet_features(spec)


def inception(
    file: str, spec: DataSpec, train: Dataset | None, progress: Progress | None, keep: Path | None
) -> Extractor:
    return inception_features(file, spec)
