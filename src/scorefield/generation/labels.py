"""Which classes are sampled: as a user names them, or as the user's own images say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scorefield.data import Dataset
from scorefield.models.base import Model
from scorefield.runtime.checks import did_you_mean
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import whole_number

__all__ = ["ClassNames", "class_labels", "labels_of_images"]

ClassNames = int | str | Sequence[int | str]


def class_labels(
    model: Model, labels: ClassNames | None, classifier: Model | None = None
) -> list[int] | None:
    """The numbers of the classes that a user names, cycled over the samples.

    Args:
        model: Its classes are meant; those of the classifier where the model is unconditional.
        labels: Numbers, or names. Default: every class in turn.
        classifier: The classifier that guides.

    Returns:
        None for an unconditional model without a classifier.

    Raises:
        InputError: For an unknown class, and for labels where nothing takes any.
    """
    labelled = model if model.num_classes else classifier
    if labelled is None:
        if labels is not None:
            raise InputError(
                "this model is unconditional: leave labels (--label) out, or guide it by a classifier (--classifier RUN)"
            )
        return None
    if labels is None:
        return list(range(labelled.num_classes))
    listed = np.asarray(labels).tolist()  # of one label that label itself
    chosen = listed if isinstance(listed, list) else [listed]
    if not chosen:
        raise InputError("labels is an empty list: name at least one class, or leave labels out")
    return [_number(labelled, label) for label in chosen]


def labels_of_images(
    images: Dataset | None, model: Model, classifier: Model | None = None
) -> list[int] | None:
    """The classes of a user's images, in the numbering of the model, or of the classifier of an unconditional
    one; None where neither has classes.
    """
    labelled = model if model.num_classes else classifier
    if labelled is None or images is None:
        return None
    if images.labels is None:
        raise InputError(
            f"{images.source} does not say the classes of its images: name them by labels (--label)"
        )
    return [_number(labelled, images.spec.classes[label]) for label in images.labels.tolist()]


def _number(labelled: Model, label: int | str) -> int:
    """The class of this number; a word is a name, or else a number."""
    names = list(labelled.data.classes) if labelled.data is not None else []
    if isinstance(label, str) and label in names:
        return names.index(label)
    number = whole_number(label) if isinstance(label, str) else label
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < labelled.num_classes:
        return number
    raise InputError(
        f"there is no class {label!r}{did_you_mean(str(label), names)}; there are {', '.join(names[:20])} "
        f"(0 … {labelled.num_classes - 1})"
    )
