"""Which classes a command asks for: by --label, or as the user's own images say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scorefield.data import Dataset
    from scorefield.models.denoiser import Denoiser
    from scorefield.models.noisy_classifier import NoisyClassifier

__all__ = ["class_labels", "labels_of"]


def labels_of(small: Dataset, model: Denoiser, classifier: NoisyClassifier | None = None) -> list[int] | None:
    """The classes of a user's images, in the numbering of the model, or of the classifier of an unconditional
    one.
    """
    from scorefield.runtime.errors import InputError

    labelled = model if model.num_classes else classifier
    if labelled is None:
        return None
    if small.labels is None:
        raise InputError(f"{small.source} does not say the classes of its images: name them by --label")
    return [_class_number(labelled, small.spec.classes[label]) for label in small.labels.tolist()]


def class_labels(
    model: Denoiser | NoisyClassifier, label: list[str] | None, classifier: NoisyClassifier | None = None
) -> list[int] | None:
    """The classes that --label names, by number or name; all of them if not given.

    Those of the model, of the classifier where the model is unconditional, and None where it has no
    classifier either.
    """
    from scorefield.runtime.errors import InputError

    if not getattr(model, "num_classes", 0):
        if classifier is not None:
            return class_labels(classifier, label)
        if label:
            raise InputError(
                "this model is unconditional: leave --label out, or guide it by a classifier (--classifier RUN)"
            )
        return None
    if not label:
        return list(range(model.num_classes))
    return [_class_number(model, part.strip()) for entry in label for part in entry.split(",")]


def _class_number(model: Denoiser | NoisyClassifier, word: str) -> int:
    """The class of this name, or else of this number."""
    from scorefield.runtime.checks import did_you_mean
    from scorefield.runtime.errors import InputError
    from scorefield.runtime.parsing import whole_number

    names = list(model.data.classes) if model.data is not None else []
    if word in names:
        return names.index(word)
    number = whole_number(word)
    if number is not None and number < model.num_classes:
        return number
    raise InputError(
        f"there is no class {word!r}{did_you_mean(word, names)}; there are {', '.join(names[:20])} (0 … {model.num_classes - 1})"
    )
