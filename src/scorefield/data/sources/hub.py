"""Data sets read with Hugging Face `datasets` (an optional extra), from its hub or from a local folder:
whole, or as a stream.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset, number_labels
from scorefield.data.images.decode import Decoder
from scorefield.data.images.eager import gather, reason_of
from scorefield.data.images.lazy import decodes_on_demand, pictures
from scorefield.data.images.read import check_options
from scorefield.data.sources.stream import BUFFER, Row, Stream
from scorefield.runtime.errors import InputError

__all__ = ["hf", "is_saved", "stream"]


def hf(
    name: str,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    upscale: bool = False,
    strict: bool = False,
    on_demand: bool | None = False,
) -> Dataset:
    """A data set named as on the hub, or a local folder in a layout that `datasets` reads -> levels uint8,
    256 bins.

    The pictures are the first Image column; the labels the ClassLabel column (`label` before others), with
    its names, or an integer or text column called `label`, `labels` or `cls` (webdataset's name). size None
    keeps the pictures' size, which must then be one; channels None gives 1 where all are grey, otherwise 3.
    Unreadable and small pictures are treated as in `folder`.

    on_demand: decode pictures when a batch asks for them, out of the files on the disk that `datasets` has
    made of the data set.
    """
    datasets, source = _library(name), f"hf:{name}"
    table = _load(datasets, name, split, source)
    column = _image_column(datasets, table.features, source)
    if not len(table):
        raise InputError(f"{source}: the split {split!r} is empty")
    labels, classes = _labels(datasets, table, source)
    # Left to itself `datasets` decodes while iterating, and one corrupt image would end the iteration.
    rows = _Rows(table.select_columns([column]).cast_column(column, datasets.Image(decode=False)), column)
    options: dict[str, Any] = {"size": size, "channels": channels, "upscale": upscale, "strict": strict}
    if decodes_on_demand(on_demand, len(table), size, channels):
        check_options(size, channels)
        values = pictures(rows, labels, source, **options)
        return Dataset(DataSpec(values.shape[1:], classes=classes, bins=256), values, labels, source)
    found = gather(rows.files(), len(table), source, **options)
    spec = DataSpec(shape=found.values.shape[1:], classes=classes, bins=256)
    kept = None if labels is None else labels[torch.from_numpy(found.kept)]
    return Dataset(spec, torch.from_numpy(found.values), kept, source, found.skipped)


def stream(
    name: str,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    upscale: bool = False,
    strict: bool = False,
    classes: int | None = None,
    buffer: int = BUFFER,
) -> Stream:
    """A data set named as on the hub, or a local folder of shards, that is read while training and kept
    nowhere -> 256 bins.

    The order of an epoch is that of a seed: shards are shuffled, and rows within a buffer of `buffer` encoded
    pictures. Columns, size and channels are as for `hf`, judged by the first 64 rows. Labels are a ClassLabel
    column, or integers 0 … classes−1; text has no numbers before all of it was seen, so such data are
    unlabelled.
    """
    datasets, source = _library(name), f"hf:{name}"
    check_options(size, channels)
    if is_saved(name):
        raise InputError(
            f"{source} was written by save_to_disk, so its rows can be had in any order: open it with sf.data.hf instead"
        )
    if classes is not None and classes < 1:
        raise InputError(f"classes is how many there are, at least 1; got {classes}")
    if buffer < 1:
        raise InputError(
            f"the buffer that a stream is shuffled in must hold at least 1 picture, got {buffer}"
        )
    table = _load(datasets, name, split, source, streaming=True)
    features = table.features or {}
    column = _image_column(datasets, features, source)
    labels, names = _stream_labels(datasets, features, classes, source)
    table = table.select_columns([column, *labels]).cast_column(column, datasets.Image(decode=False))
    rows = _StreamedRows(table, column, next(iter(labels), None), buffer, source)
    first = rows.first(64)
    if not first:
        raise InputError(f"{source}: the split {split!r} is empty")
    found = gather(
        [(row.name, row.content) for row in first],
        len(first),
        source,
        size=size,
        channels=channels,
        upscale=upscale,
        strict=strict,
    )
    shape = (found.values.shape[1], found.values.shape[2], found.values.shape[3])
    labelled = bool(labels) and any(row.label >= 0 for row in first)
    spec = DataSpec(shape, classes=names if labelled else (), bins=256)
    made = Stream(spec, rows, Decoder(source, shape, size, channels, upscale, strict), labelled, source)
    list(map(made.checked, first))
    return made


def is_saved(name: str) -> bool:
    """Whether this is a folder that `save_to_disk` wrote: a table whose rows can be had in any order."""
    local = Path(os.path.expanduser(name))
    return (local / "dataset_dict.json").is_file() or (local / "state.json").is_file()


def _library(name: str) -> Any:
    if not name:
        raise InputError(
            "hf: must be followed by a data set's name on the hub, or a local folder, as in hf:cifar10"
        )
    try:
        import datasets
    except ImportError as fault:
        raise InputError(f"hf:{name} needs the package `datasets`: pip install 'scorefield[hf]'") from fault
    return datasets


def _image_column(datasets: Any, features: Mapping[str, Any], source: str) -> str:
    column = next((key for key, kind in features.items() if isinstance(kind, datasets.Image)), None)
    if column is None:
        raise InputError(f"{source}: no column holds images; the columns are {', '.join(features) or 'none'}")
    return column


def _load(datasets: Any, name: str, split: str, source: str, streaming: bool = False) -> Any:
    """The table of one split, or the stream of its rows."""
    local = Path(os.path.expanduser(name))
    try:
        # `load_dataset` refuses what `save_to_disk` wrote.
        if is_saved(name):
            saved = datasets.load_from_disk(str(local))
            if not isinstance(saved, datasets.DatasetDict):
                return saved
            if split not in saved:
                raise ValueError(f"no split {split!r}, only {', '.join(saved)}")
            return saved[split]
        return datasets.load_dataset(
            str(local) if os.path.isdir(local) else name, split=split, streaming=streaming
        )
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


class _StreamedRows:
    """The rows of a stream. label: its column, if there is one."""

    def __init__(self, table: Any, column: str, label: str | None, buffer: int, source: str) -> None:
        self.table, self.column, self.label, self.buffer, self.source = table, column, label, buffer, source

    def first(self, count: int) -> list[Row]:
        return list(self._rows(self.table.take(count)))

    def shuffled(self, seed: int) -> Iterator[Row]:
        # Of newer versions, which otherwise read ten shards at a time in threads that take five seconds to
        # end, at every epoch.
        known = inspect.signature(self.table.shuffle).parameters
        one = {"max_buffer_input_shards": 1} if "max_buffer_input_shards" in known else {}
        return self._rows(self.table.shuffle(seed=seed, buffer_size=self.buffer, **one))

    def digest(self) -> bytes:
        return f"{getattr(self.table, 'num_shards', None) or self.table.n_shards} {self.buffer}".encode()

    def versions(self) -> dict[str, str]:
        return {"datasets": version("datasets")}

    def _rows(self, table: Any) -> Iterator[Row]:
        try:
            for found in table:
                yield self._row(found)
        except InputError:
            raise
        except (
            Exception
        ) as fault:  # the hub, the network and every file format have their own kinds of failure
            raise InputError(
                f"{self.source}: the stream broke off ({type(fault).__name__}: {reason_of(fault)}); "
                f"when it can be read again, a run goes on with --resume"
            ) from fault

    def _row(self, found: Mapping[str, Any]) -> Row:
        path, content = ((found[self.column] or {}).get(key) for key in ("path", "bytes"))
        if content is None and path is not None:
            with suppress(OSError):  # a picture that cannot be read is met, and named, when it is decoded
                content = Path(path).read_bytes()
        label = found[self.label] if self.label is not None else None
        name = path or "a picture"
        try:
            return Row(name, content, -1 if label is None else int(label))
        except (TypeError, ValueError):
            raise InputError(
                f"{self.source}: {name} has the label {label!r}, which is no whole number"
            ) from None


def _name(cell: Any, number: int) -> str:
    path = (cell or {}).get("path")
    return (
        f"row {number}" if path is None else f"{path} (row {number})"
    )  # paths inside a table may be the same


def _content(cell: Any) -> Path | bytes | None:
    path, content = (cell or {}).get("path"), (cell or {}).get("bytes")
    return content if content is not None else Path(path) if path else None


def _stream_labels(
    datasets: Any, features: Mapping[str, Any], classes: int | None, source: str
) -> tuple[list[str], tuple[str, ...]]:
    """(the label column, if there is one, names of the classes)"""
    column = _label_column(datasets, features)
    if column is None:
        return [], ()
    kind = features[column]
    if isinstance(kind, datasets.ClassLabel):
        return [column], tuple(kind.names)
    if "int" not in kind.dtype:
        return [], ()
    if classes is None:
        raise InputError(
            f"{source}: column {column!r} holds plain integers, and a stream is not read to its end to count the classes: "
            f"say how many there are (classes = K for the labels 0 … K−1; in a recipe data.classes)"
        )
    return [column], tuple(map(str, range(classes)))


def _labels(datasets: Any, table: Any, source: str) -> tuple[Tensor | None, tuple[str, ...]]:
    """(int64 (N,), class names), or (None, ()) where the rows carry no label."""
    features = table.features
    column = _label_column(datasets, features)
    if column is None:
        return None, ()
    named = isinstance(features[column], datasets.ClassLabel)
    values = table.with_format(None)[column][:]
    missing = sum(value is None or (named and value < 0) for value in values)
    if missing == len(values):
        return None, ()
    if missing:
        raise InputError(f"{source}: {missing} of {len(values)} rows have no label in column {column!r}")
    if named:
        return torch.tensor(values, dtype=torch.int64), tuple(features[column].names)
    return number_labels(np.array(values), f"{source}, column {column!r}")


def _label_column(datasets: Any, features: Mapping[str, Any]) -> str | None:
    named = sorted(
        (key for key in features if isinstance(features[key], datasets.ClassLabel)),
        key=lambda k: k != "label",
    )
    plain = [key for key in ("label", "labels", "cls") if isinstance(features.get(key), datasets.Value)]
    return next(iter(named + plain), None)
