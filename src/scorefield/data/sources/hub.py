"""Data sets read with Hugging Face `datasets` (an optional extra), from the hub or a local folder:
completely, or as a stream.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset, number_labels
from scorefield.data.images.decode import Decoder
from scorefield.data.images.eager import decode_all
from scorefield.data.images.lazy import MEMORY, PROBE
from scorefield.data.images.read import LARGEST, WHITE, ImageOptions
from scorefield.data.images.unreadable import reason_of
from scorefield.data.sources.image_files import dataset_of
from scorefield.data.sources.opener import Opener, SourceOptions
from scorefield.data.sources.stream import BUFFER, Row, Stream
from scorefield.runtime.checks import instance_of, one_of, positive_int
from scorefield.runtime.errors import InputError
from scorefield.runtime.printable import one_line
from scorefield.runtime.reading import as_path, read_bytes

if TYPE_CHECKING:  # an optional extra, imported when it is used
    import datasets

__all__ = ["hf", "is_saved", "stream"]


_IMAGES = ("image", "img", "images", "png", "jpg", "jpeg", "webp")  # what columns of images are called


# An image as `datasets` keeps it: a path, its bytes, or both.
class _Cell(TypedDict, total=False):
    path: str | None
    bytes: bytes | None


def hf(
    name: str,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    upscale: bool = False,
    strict: bool = False,
    on_demand: bool | None = False,
    *,
    memory: int = MEMORY,
    probe: int = PROBE,
    column: str | None = None,
    white: int = WHITE,
) -> Dataset:
    """A data set of the Hugging Face Hub, or a local folder that `datasets` reads, with 256 bins.

    Images are those of `column`. Labels are the ClassLabel column (`label` before others), with its
    names, or an integer or text column called `label`, `labels` or `cls` (webdataset's name). Unreadable and
    small images are treated as in `folder`. A row that names a file in place of the bytes of its image is read where
    the file lies in the folder of the data.

    Args:
        name: Name on the hub, or a local folder.
        split: Which split to read.
        size: Side in pixels to reduce and crop images to. None: unchanged, and then all must have one size.
        channels: 1 (grey) or 3 (RGB). None: 1 where all images are grey, otherwise 3.
        upscale: Enlarge images that are smaller than `size`, which is an error otherwise.
        strict: An unreadable image is an error.
        on_demand: Decode images when a batch asks for them, from the files that `datasets` keeps on the disk.
            None: where they would take more than `memory`.
        memory: Bytes of decoded images.
        probe: How many images to decode at once, evenly spread, where the others are decoded on demand.
        column: Of the images. Default: the only column of images, or the one called image, img, png or jpg.
        white: The value of white in 16-bit images.

    Raises:
        InputError: If `datasets` is not installed or cannot load the data, and as `folder` does.
    """
    library, source, options = (
        _library(name),
        f"hf:{name}",
        ImageOptions(size, channels, upscale, strict, white),
    )
    positive_int("probe", probe)
    table = _load(library, name, split, source)
    column, notes = _image_column(library, table.features, column, source)
    if not len(table):
        raise InputError(f"{source}: the split {split!r} is empty")
    labels, classes = _labels(library, table, source)
    # By default `datasets` decodes while iterating, and one corrupt image would end the iteration.
    cells = _Cells(_roots(library, name, table))
    rows = _Rows(
        table.select_columns([column]).cast_column(column, library.Image(decode=False)), column, cells
    )
    return dataset_of(
        rows, labels, classes, source, options, notes, on_demand=on_demand, memory=memory, probe=probe
    )


def stream(
    name: str,
    split: str = "train",
    size: int | None = None,
    channels: int | None = None,
    upscale: bool = False,
    strict: bool = False,
    classes: int | None = None,
    buffer: int = BUFFER,
    *,
    probe: int = PROBE,
    column: str | None = None,
    white: int = WHITE,
) -> Stream:
    """A data set of the Hugging Face Hub, or a local folder of shards, that is read while training and stored
    nowhere; 256 bins.

    The order of an epoch is that of a seed: shards are shuffled, and rows within a buffer of encoded images.
    Columns are those of `hf`. Text labels have no numbers before all of them were seen, so such data are
    unlabelled.

    Args:
        name: Name on the hub, or a local folder.
        split: Which split to read.
        size: Side in pixels to reduce and crop images to. None: unchanged, and then all must have one size.
        channels: 1 (grey) or 3 (RGB). None: 1 where the first images are grey, otherwise 3.
        upscale: Enlarge images that are smaller than `size`, which is an error otherwise.
        strict: An unreadable image is an error.
        classes: Number of classes where labels are plain integers, 0 … classes-1.
        buffer: How many encoded images the buffer holds.
        probe: How many rows to read at once, to find the shape of images.
        column: Of the images. Default: the only column of images, or the one called image, img, png or jpg.
        white: The value of white in 16-bit images.

    Raises:
        InputError: If `datasets` is not installed or cannot load the data; for integer labels without
            `classes`; for a folder that save_to_disk wrote (read it with `hf`); and as `hf` does.
    """
    instance_of("name", name, str, "the name of a data set, or its folder")
    library, source, options = (
        _library(name),
        f"hf:{name}",
        ImageOptions(size, channels, upscale, strict, white),
    )
    if is_saved(name):
        raise InputError(
            f"{source} was written by save_to_disk, so its rows can be read in any order: open it with "
            "sf.data.hf instead"
        )
    if classes is not None:
        positive_int("classes, the number of them,", classes)
    positive_int("buffer, the images in which a stream is shuffled,", buffer)
    positive_int("probe", probe)
    table = _load(library, name, split, source, streaming=True)
    features = table.features or {}
    column, notes = _image_column(library, features, column, source)
    labels, names = _stream_labels(library, features, classes, source)
    table = table.select_columns([column, *labels]).cast_column(column, library.Image(decode=False))
    cells = _Cells(_roots(library, name, table))
    rows = _StreamedRows(table, column, next(iter(labels), None), buffer, source, cells)
    first = rows.first(probe)
    if not first:
        raise InputError(f"{source}: the split {split!r} is empty")
    found = decode_all([(row.name, row.content) for row in first], len(first), source, options)
    shape = (found.values.shape[1], found.values.shape[2], found.values.shape[3])
    labelled = bool(labels) and any(row.label >= 0 for row in first)
    spec = DataSpec(shape, classes=names if labelled else (), bins=256)
    seen = tuple(f"as the first of them show, {note}" for note in found.notes)
    made = Stream(spec, rows, Decoder(source, shape, options), labelled, source, notes=(*notes, *seen))
    list(map(made.checked, first))
    return made


def is_saved(name: str) -> bool:
    """Whether this is a folder that `save_to_disk` wrote: a table whose rows can be read in any order."""
    local = as_path(name, "a data set")
    return (local / "dataset_dict.json").is_file() or (local / "state.json").is_file()


def _library(name: str) -> ModuleType:
    """The package `datasets`."""
    if not name:
        raise InputError(
            "hf: must be followed by a data set's name on the hub, or a local folder, as in hf:cifar10"
        )
    try:
        import datasets
    except ImportError as fault:
        raise InputError(f"hf:{name} needs the package `datasets`: pip install 'scorefield[hf]'") from fault
    return datasets


def _image_column(
    library: ModuleType, features: datasets.Features, asked: str | None, source: str
) -> tuple[str, list[str]]:
    """The column of the images, and a sentence where there are others. InputError where that would be a guess."""
    columns = [name for name, kind in features.items() if isinstance(kind, library.Image)]
    if not columns:
        raise InputError(f"{source}: no column holds images; columns: {', '.join(features) or 'none'}")
    if asked is not None:
        return one_of(f"the column of images of {source}", asked, columns), []
    usual = [name for name in _IMAGES if name in columns]
    if len(columns) > 1 and not usual:
        raise InputError(
            f"{source}: the columns {', '.join(columns)} hold images: choose one (column = {columns[0]!r}, in a "
            "recipe data.column)"
        )
    column = usual[0] if usual else columns[0]
    others = [name for name in columns if name != column]
    note = (
        f"{source}: images are those of column {column}, not of {', '.join(others)} (data.column says which)"
    )
    return column, [note] if others else []


def _load(
    library: ModuleType, name: str, split: str, source: str, streaming: bool = False
) -> datasets.Dataset | datasets.IterableDataset:
    """The table of one split, or the stream of its rows."""
    local = as_path(name, "a data set")
    try:
        # `load_dataset` refuses what `save_to_disk` wrote.
        if is_saved(name):
            saved = library.load_from_disk(str(local))
            if not isinstance(saved, library.DatasetDict):
                return saved
            if split not in saved:
                raise ValueError(f"no split {split!r}, only {', '.join(saved)}")
            return saved[split]
        return library.load_dataset(
            str(local) if os.path.isdir(local) else name, split=split, streaming=streaming
        )
    except Exception as fault:  # the hub, the network and every file format have their own kinds of failure
        raise InputError(
            f"{source}: cannot be loaded ({type(fault).__name__}: {one_line(fault)}); "
            f"expected a data set's name on the hub, or a local folder that `datasets` reads"
        ) from fault


class _Rows:
    """The encoded images of a table, by row number."""

    def __init__(self, table: datasets.Dataset, column: str, cells: _Cells) -> None:
        self.table, self.column, self.cells = table, column, cells

    def __len__(self) -> int:
        return len(self.table)

    def name(self, number: int) -> str:
        return _name(self.table[number][self.column], number)

    def content(self, number: int) -> Path | bytes | None:
        return self.cells.content(self.table[number][self.column])

    def files(self) -> Iterator[tuple[str, Path | bytes | None]]:
        """(name, the file or its bytes) of each row."""
        for number, row in enumerate(self.table):
            yield _name(row[self.column], number), self.cells.content(row[self.column])

    def digest(self) -> bytes:
        """The fingerprint of `datasets`: a hash of the table's files and of the operations on them."""
        return f"{self.table._fingerprint} {len(self)}".encode()


class _StreamedRows:
    """The rows of a stream. label: the column of labels, if there is one."""

    def __init__(
        self,
        table: datasets.IterableDataset,
        column: str,
        label: str | None,
        buffer: int,
        source: str,
        cells: _Cells,
    ) -> None:
        self.table, self.column, self.label, self.buffer, self.source = table, column, label, buffer, source
        self.cells = cells

    def first(self, count: int) -> list[Row]:
        return list(self._rows(self.table.take(count)))

    def shuffled(self, seed: int) -> Iterator[Row]:
        # Newer versions read ten shards at a time, in threads that take five seconds to end, at every epoch.
        known = inspect.signature(self.table.shuffle).parameters
        one = {"max_buffer_input_shards": 1} if "max_buffer_input_shards" in known else {}
        return self._rows(self.table.shuffle(seed=seed, buffer_size=self.buffer, **one))

    def digest(self) -> bytes:
        try:
            shards = self.table.num_shards
        except AttributeError:  # its name in older versions
            shards = self.table.n_shards
        return f"{shards} {self.buffer}".encode()

    def versions(self) -> dict[str, str]:
        return {"datasets": version("datasets")}

    def _rows(self, table: datasets.IterableDataset) -> Iterator[Row]:
        try:
            for found in table:
                yield self._row(found[self.column], None if self.label is None else found[self.label])
        except InputError:
            raise
        except (
            Exception
        ) as fault:  # the hub, the network and every file format have their own kinds of failure
            raise InputError(
                f"{self.source}: the stream broke off ({type(fault).__name__}: {reason_of(fault)}); "
                "when it can be read again, resume the run",
                command="--resume",
            ) from fault

    def _row(self, cell: _Cell | None, label: int | None) -> Row:
        found, content, name = self.cells.content(cell), None, (cell or {}).get("path") or "an image"
        if isinstance(found, bytes):
            content = found
        elif found is not None:
            with suppress(InputError):  # an image that cannot be read is met, and named, when it is decoded
                content = read_bytes(found, "an image", LARGEST)
        try:
            return Row(name, content, -1 if label is None else int(label))
        except (TypeError, ValueError):
            raise InputError(
                f"{self.source}: {name} has the label {label!r}, which is not an integer"
            ) from None


def _name(cell: _Cell | None, number: int) -> str:
    path = (cell or {}).get("path")
    return (
        f"row {number}" if path is None else f"{path} (row {number})"
    )  # paths inside a table may be the same


class _Cells:
    """Reads the images of a table's rows. A row holds the bytes of its image, or names a file, which is taken only where
    it lies in one of the folders `roots`: a table of others could name any file of this machine.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = [os.path.abspath(root) for root in roots]

    def content(self, cell: _Cell | None) -> Path | bytes | None:
        path, content = (cell or {}).get("path"), (cell or {}).get("bytes")
        if content is not None or not path:
            return content
        for root in self.roots:
            full = os.path.normpath(os.path.join(root, path))
            if full.startswith(root + os.sep):
                return Path(full)
        return None


def _roots(library: ModuleType, name: str, table: datasets.Dataset | datasets.IterableDataset) -> list[Path]:
    """The folders in which a row may name a file: of a local data set its own, of a folder of images from the hub, whose
    paths `datasets` itself makes, those that it downloads to. Of other tables from the hub none.
    """
    local = as_path(name, "a data set")
    if local.is_dir():
        return [local]
    if table.info.builder_name != "imagefolder":
        return []
    hub = import_module("huggingface_hub.constants")
    return [Path(library.config.HF_DATASETS_CACHE), Path(hub.HF_HUB_CACHE)]


def _stream_labels(
    library: ModuleType, features: datasets.Features, classes: int | None, source: str
) -> tuple[list[str], tuple[str, ...]]:
    """(the label column, if there is one, names of the classes)"""
    column = _label_column(library, features)
    if column is None:
        return [], ()
    kind = features[column]
    if isinstance(kind, library.ClassLabel):
        return [column], tuple(kind.names)
    if "int" not in kind.dtype:
        return [], ()
    if classes is None:
        raise InputError(
            f"{source}: column {column!r} holds plain integers, and the classes of a stream cannot be counted "
            "without reading all of it: give their number (classes = K for the labels 0 … K−1; in a recipe "
            "data.classes)"
        )
    return [column], tuple(map(str, range(classes)))


def _labels(
    library: ModuleType, table: datasets.Dataset, source: str
) -> tuple[Tensor | None, tuple[str, ...]]:
    """(int64 (N,), class names), or (None, ()) where the rows carry no label."""
    features = table.features
    column = _label_column(library, features)
    if column is None:
        return None, ()
    named = isinstance(features[column], library.ClassLabel)
    values = table.with_format(None)[column][:]
    missing = sum(value is None or (named and value < 0) for value in values)
    if missing == len(values):
        return None, ()
    if missing:
        raise InputError(f"{source}: {missing} of {len(values)} rows have no label in column {column!r}")
    if named:
        return torch.tensor(values, dtype=torch.int64), tuple(features[column].names)
    return number_labels(np.array(values), f"{source}, column {column!r}")


def _label_column(library: ModuleType, features: datasets.Features) -> str | None:
    named = sorted(
        (key for key in features if isinstance(features[key], library.ClassLabel)),
        key=lambda k: k != "label",
    )
    plain = [key for key in ("label", "labels", "cls") if isinstance(features.get(key), library.Value)]
    return next(iter(named + plain), None)


class _Hub(Opener):
    def open(self, name: str, options: SourceOptions) -> Dataset | Stream:
        lazily = options.stream
        size, channels, upscale, strict = options.side, options.channels, options.upscale, options.strict
        column, white = options.column, options.white
        if lazily and not is_saved(name):
            classes, buffer = options.classes, options.buffer
            return stream(
                name, "train", size, channels, upscale, strict, classes, buffer, column=column, white=white
            )
        return hf(name, "train", size, channels, upscale, strict, lazily, column=column, white=white)


SOURCE = _Hub()
