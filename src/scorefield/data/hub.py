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
from scorefield.data.images import check_options
from scorefield.data.on_demand import pictures, streams

__all__ = ["hf"]


def hf(
    name: str,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    upscale: bool = False,
    strict: bool = False,
    stream: bool | None = False,
) -> Dataset:
    """A data set named as on the hub, or a local folder in a layout that `datasets` reads -> levels uint8, 256 bins.

    The pictures are the first Image column; the labels the ClassLabel column (`label` before others), with its names,
    or an integer or text column called `label`, `labels` or `cls` (webdataset's name). size None keeps the pictures' size, which must then be one;
    channels None gives 1 where all are grey, otherwise 3. Unreadable and small pictures are treated as in `folder`.

    stream: decode pictures when a batch asks for them, out of the files on the disk that `datasets` has made of the data set.
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
    rows = _Rows(table.select_columns([column]).cast_column(column, datasets.Image(decode=False)), column)
    options: dict[str, Any] = {"size": size, "channels": channels, "upscale": upscale, "strict": strict}
    if streams(stream, len(table), size, channels):
        check_options(size, channels)
        levels = pictures(rows, labels, source, **options)
        return Dataset(DataSpec(levels.shape[1:], classes=classes, bins=256), levels, labels, source)
    found = gather(rows.files(), len(table), source, **options)
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


class _Rows:
    """The encoded pictures of a table, by row number."""

    def __init__(self, table: Any, column: str) -> None:
        self.table, self.column = table, column

    def __len__(self) -> int:
        return len(self.table)

    def name(self, number: int) -> str:
        return _name(self.table[number][self.column], number)

    def content(self, number: int) -> Path | bytes | None:
        return _content(self.table[number][self.column])

    def files(self) -> Iterator[tuple[str, Path | bytes | None]]:
        """(name, the file or its bytes) of each row."""
        for number, row in enumerate(self.table):
            yield _name(row[self.column], number), _content(row[self.column])

    def digest(self) -> bytes:
        """What `datasets` knows the table by: a hash of its files and of what was done to them."""
        return f"{self.table._fingerprint} {len(self)}".encode()


def _name(cell: Any, number: int) -> str:
    return (cell or {}).get("path") or f"row {number}"


def _content(cell: Any) -> Path | bytes | None:
    path, content = (cell or {}).get("path"), (cell or {}).get("bytes")
    return content if content is not None else Path(path) if path else None


def _labels(datasets: Any, table: Any, source: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """(int64 (N,), class names), or (None, ()) where the rows carry no label."""
    features = table.features
    named = sorted((key for key in features if isinstance(features[key], datasets.ClassLabel)), key=lambda k: k != "label")
    plain = [key for key in ("label", "labels", "cls") if isinstance(features.get(key), datasets.Value)]
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
