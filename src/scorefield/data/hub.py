"""Data sets read with Hugging Face `datasets` (an optional extra), from its hub or from a local folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.core.errors import InputError
from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset, number_labels
from scorefield.data.gather import gather

__all__ = ["hf"]


def hf(
    name: str,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    upscale: bool = False,
    strict: bool = False,
) -> Dataset:
    """A data set named as on the hub, or a local folder in a layout that `datasets` reads -> levels uint8, 256 bins.

    The pictures are the first Image column; the labels the ClassLabel column (`label` before others), with its names,
    or an integer or text column called `label` or `labels`. size None keeps the pictures' size, which must then be one;
    channels None gives 1 where all are grey, otherwise 3. Unreadable and small pictures are treated as in `folder`.
    """
    source = f"hf:{name}"
    if not name:
        raise InputError("hf: must be followed by a data set's name on the hub, or a local folder, as in hf:cifar10")
    try:
        import datasets
    except ImportError as fault:
        raise InputError(f"{source} needs the package `datasets`: pip install 'scorefield[hf]'") from fault
    table = _load(datasets, name, split, source)
    column = next((key for key, kind in table.features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise InputError(f"{source}: no column holds images; the columns are {', '.join(table.features) or 'none'}")
    if not len(table):
        raise InputError(f"{source}: the split {split!r} is empty")
    labels, classes = _labels(datasets, table, source)
    # Left to itself `datasets` decodes while iterating, and one corrupt image would end the iteration.
    pictures = table.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    found = gather(_encoded(pictures, column), len(table), source, size=size, channels=channels, upscale=upscale, strict=strict)
    spec = DataSpec(shape=found.levels.shape[1:], classes=classes, bins=256)
    kept = None if labels is None else labels[torch.from_numpy(found.kept)]
    return Dataset(spec, torch.from_numpy(found.levels), kept, source, found.skipped)


def _load(datasets: Any, name: str, split: str, source: str) -> Any:
    """The table of one split."""
    local = Path(os.path.expanduser(name))
    try:
        # `load_dataset` refuses what `save_to_disk` wrote.
        if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            saved = datasets.load_from_disk(str(local))
            if not isinstance(saved, datasets.DatasetDict):
                return saved
            if split not in saved:
                raise ValueError(f"no split {split!r}, only {', '.join(saved)}")
            return saved[split]
        return datasets.load_dataset(str(local) if os.path.isdir(local) else name, split=split)
    except Exception as fault:  # the hub, the network and every file format have their own kinds of failure
        raise InputError(
            f"{source}: cannot be loaded ({type(fault).__name__}: {' '.join(str(fault).split())}); "
            f"expected a data set's name on the hub, or a local folder that `datasets` reads"
        ) from fault


def _encoded(pictures: Any, column: str) -> Iterator[tuple[str, Path | bytes | None]]:
    """(name, the file or its bytes) of each row."""
    for number, row in enumerate(pictures):
        cell = row[column] or {}
        path, content = cell.get("path"), cell.get("bytes")
        yield path or f"row {number}", content if content is not None else Path(path) if path else None


def _labels(datasets: Any, table: Any, source: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """(int64 (N,), class names), or (None, ()) where the rows carry no label."""
    features = table.features
    named = sorted((key for key in features if isinstance(features[key], datasets.ClassLabel)), key=lambda k: k != "label")
    plain = [key for key in ("label", "labels") if isinstance(features.get(key), datasets.Value)]
    column = next(iter(named + plain), None)
    if column is None:
        return None, ()
    values = table.with_format(None)[column][:]
    missing = sum(value is None or (bool(named) and value < 0) for value in values)
    if missing == len(values):
        return None, ()
    if missing:
        raise InputError(f"{source}: {missing} of {len(values)} rows have no label in column {column!r}")
    if named:
        return torch.tensor(values, dtype=torch.int64), tuple(features[column].names)
    return number_labels(np.array(values), f"{source}, column {column!r}")
