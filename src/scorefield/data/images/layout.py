"""Folders whose subfolders are no classes: the splits of a data set, shards of one set, and labels in dataset.json."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scorefield.data.images.scan import Listing, list_images, text
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import MissingFile, read_json

__all__ = ["LABELS_FILE", "arrange"]

LABELS_FILE = "dataset.json"  # of StyleGAN's and EDM's tools
_LONGEST = 2**29  # bytes of it: ten million images
_TRAINING = ("train", "training")
_SPLITS = (*_TRAINING, "val", "valid", "validation", "dev", "test", "testing", "eval")
_SHARD = re.compile(r"\d{4,}")
_SHARD_SIZES = (100, 1_000, 10_000, 100_000)


def arrange(root: Path, source: str) -> tuple[Listing, list[str]]:
    """The images of a folder with their classes, and sentences on what was read otherwise than by subfolders.

    - `train` beside `val` or `test`: the images of `train`, with its subfolders as classes.
    - dataset.json in the form {"labels": [["FILE", 3], …]}: those labels; with `null` for them, none.
    - 00000, 00001, … whose files are numbered on from folder to folder: parts of one set without classes.

    Args:
        root: The folder.
        source: What the user named, for messages.

    Raises:
        InputError: As `list_images`; for splits without a training part; for images that dataset.json leaves out.
    """
    listing, notes = list_images(root, source), list[str]()
    if listing.classes and all(name.lower() in _SPLITS for name in listing.classes):
        name = _chosen_split(listing.classes, source)
        others = [other for other in listing.classes if other != name]
        everything = len(listing)
        listing = list_images(root / name, source)
        unread = everything - len(listing)
        also = f"; {', '.join(others)} ({unread:,} images) are left out" if others else ""
        notes.append(f"{source}: the images of {name} are read{also}")
    labelled, note = _with_labels_file(listing, source)
    notes += [note] if note else []
    if labelled is not None:
        return labelled, notes
    if _are_shards(listing):
        notes.append(
            f"{source}: {listing.classes[0]} … {listing.classes[-1]} are parts of one set (their files are "
            "numbered consecutively), not classes"
        )
        listing = replace(listing, classes=(), labels=None)
    return listing, notes


def _chosen_split(names: Sequence[str], source: str) -> str:
    """The training part, or the only part. InputError where there is none."""
    training = [name for name in names if name.lower() in _TRAINING]
    chosen = training if training else list(names)
    if len(chosen) != 1:
        raise InputError(
            f"{source}: {' and '.join(names)} are splits of a data set, not classes: give the one to read, "
            f"{source}/{chosen[0]}"
        )
    return chosen[0]


def _with_labels_file(listing: Listing, source: str) -> tuple[Listing | None, str]:
    """The images with the classes of dataset.json, and a sentence on it; None where it says nothing of use."""
    where = f"{source}: {LABELS_FILE}"
    try:
        found = read_json(listing.root / LABELS_FILE, "the labels of images", _LONGEST)
    except MissingFile:
        return None, ""
    except InputError as error:
        return None, f"{error}; it is ignored"
    entries = found.get("labels", ()) if isinstance(found, dict) else ()
    if entries is None:
        return replace(listing, classes=(), labels=None), f"{where} says that the images have no classes"
    label_of = dict(_pairs(entries))
    if not label_of or len(label_of) != len(entries):
        form = '{"labels": [["FILE", 3], …]} with whole numbers'
        return None, f"{where} is not of the form {form}, and is ignored"
    names = [listing.name(number).replace("\\", "/") for number in range(len(listing))]
    missing = [name for name in names if name not in label_of]
    if missing:
        raise InputError(
            f"{where} has no label for {len(missing):,} of {len(names):,} images (first {missing[0]}): add them, or remove "
            f"{LABELS_FILE}"
        )
    known, labels = np.unique([label_of[name] for name in names], return_inverse=True)
    said = replace(listing, classes=tuple(map(str, known)), labels=labels.astype(np.int64))
    return said, f"{where} gives the classes"


def _pairs(entries: object) -> Iterator[tuple[str, int]]:
    """The entries that are a file and its class."""
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str):
            name, label = entry
            if isinstance(label, int) and not isinstance(label, bool) and abs(label) < 2**63:
                yield text(name), label


def _are_shards(listing: Listing) -> bool:
    """Whether the subfolders are 00000, 00001, …, and file n lies in folder ⌊n/size⌋, or in one called size·⌊n/size⌋."""
    if not listing.classes or not all(_SHARD.fullmatch(name) for name in listing.classes):
        return False
    places = [int(name) for name in listing.classes]
    folders = [places[label] for label in listing.labels.tolist()] if listing.labels is not None else []
    sizes = {(size, unit) for size in _SHARD_SIZES for unit in (1, size)}
    for number, folder in enumerate(folders):
        digits = re.findall(r"\d+", Path(listing.name(number)).stem)
        own = int(digits[-1]) if digits else -1
        sizes = {(size, unit) for size, unit in sizes if own // size * unit == folder}
        if not sizes:
            return False
    return True
