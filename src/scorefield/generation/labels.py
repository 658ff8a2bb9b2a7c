"""Which classes are sampled: as a user names them, or as the user's own images say."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from scorefield.data import Dataset
from scorefield.data.class_names import class_numbers, split_names
from scorefield.models.base import Model
from scorefield.runtime.checks import check_length
from scorefield.runtime.errors import InputError

__all__ = ["ClassNames", "class_labels", "labels_of_images"]

ClassNames = int | str | Sequence[int | str]


def class_labels(
    model: Model,
    labels: ClassNames | None,
    classifier: Model | None = None,
    unseen: Collection[int] = (),
) -> list[int] | None:
    """The numbers of the classes that a user names, cycled over the samples.

    Args:
        model: Its classes are meant; those of the classifier where the model is unconditional.
        labels: Numbers, or names; names in a text have commas between them. All words are names, or all are
            numbers. Default: every class in turn that is not `unseen`.
        classifier: The classifier that guides.
        unseen: Classes of a conditional model that it has no training examples of.

    Returns:
        None for an unconditional model without a classifier.

    Raises:
        InputError: For an unknown class, and for labels where nothing takes any.
    """
    labelled = model if model.num_classes else classifier
    if labelled is None:
        if labels is not None:
            raise InputError(
                "this model is unconditional: remove labels, use classifier guidance, or train with "
                "model.conditional=true",
                command="--label, --classifier RUN, --set model.conditional=true",
            )
        return None
    if labels is None:
        left_out = unseen if labelled is model else ()
        return [label for label in range(labelled.num_classes) if label not in left_out]
    check_length("labels", labels)
    listed = np.asarray(labels, dtype=object).tolist()  # of one label that label itself
    chosen = listed if isinstance(listed, list) else [listed]
    if not chosen:
        raise InputError("labels is an empty list: give at least one class, or remove labels")
    names = list(labelled.data.classes) if labelled.data is not None else []
    words = [split_names(label, names) if isinstance(label, str) else [label] for label in chosen]
    flat = [label for part in words for label in part]
    named = class_numbers(
        [label for label in flat if isinstance(label, str)], names, labelled.num_classes
    )  # of words one numbering; a number that is no word is the class of this number
    return [named.pop(0) if isinstance(label, str) else _number(labelled, label) for label in flat]


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
        raise InputError(f"{images.source} has no labels for its images: give labels", command="--label")
    found, used = images.spec.classes, list(dict.fromkeys(images.labels.tolist()))
    known = () if labelled.data is None else labelled.data.classes
    numbers = class_numbers([found[label] for label in used], known, labelled.num_classes, images.source)
    number_of = dict(zip(used, numbers, strict=True))
    return [number_of[label] for label in images.labels.tolist()]


def _number(labelled: Model, label: object) -> int:
    """The class of this number."""
    if isinstance(label, int | np.integer) and not isinstance(label, bool):
        number = int(label)
        if 0 <= number < labelled.num_classes:
            return number
    names = () if labelled.data is None else labelled.data.classes
    raise InputError(
        f"there is no class {label!r}; there are {', '.join(names[:20])} (0 … {labelled.num_classes - 1})"
    )
