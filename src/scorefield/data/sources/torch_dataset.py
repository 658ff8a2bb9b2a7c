"""Data sets of one's own: any map-style `torch.utils.data.Dataset`, read item by item while training."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol, SupportsIndex

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as MapDataset

from scorefield.core.shapes import DataSpec
from scorefield.data.arrays import RESERVED, add_tensor, check_name, is_numeric, numeric_tensor
from scorefield.data.base import Share
from scorefield.data.dataset import range_of
from scorefield.data.images.unreadable import UnreadableLog, reason_of
from scorefield.data.loading.epoch_order import EpochBatches, EpochOrder
from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import InputError

__all__ = ["MapStyle", "TorchDataset", "torch_dataset"]

_ACCEPTED = (
    'a tensor, a pair (image, label), or a dict with "image" (or "x"), "label" (or "y") and further arrays'
)


class MapStyle(Protocol):
    """What is read: `len(dataset)` items, `dataset[index]` for each index from 0."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


class Item(NamedTuple):
    """One item: values (*shape) as uint8 or float32, its label, and further arrays (*) by name."""

    values: Tensor
    label: int | None
    arrays: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class TorchDataset:
    """A map-style data set as a source of training; `torch_dataset` makes it.

    Item i is read when a batch needs it, in a thread that reads ahead. The order, the shares of the processes
    and what a resumed run reads are those of a `Dataset` with the same items in memory.

    Attributes:
        spec: What one item is.
        dataset: The data set.
        source: Its name, for messages and the run.
        array_shapes: Shape of each further array, by name.
        digests: SHA-256 of the probed values and labels (under ""), and of each further array under its name.
        threads: How many threads read items at the same time.
        unreadable: Empty: an item that cannot be read is an error.
    """

    spec: DataSpec
    dataset: MapStyle
    source: str
    array_shapes: Mapping[str, tuple[int, ...]]
    digests: Mapping[str, str]
    threads: int = 1
    unreadable: UnreadableLog = field(default_factory=UnreadableLog)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def examples(self) -> int:
        return len(self)

    @property
    def labelled(self) -> bool:
        return bool(self.spec.classes)

    @property
    def in_memory(self) -> bool:
        return False

    @property
    def array_names(self) -> tuple[str, ...]:
        return tuple(sorted(self.array_shapes))

    @property
    def versions(self) -> Mapping[str, str]:
        return {}

    def order(self, batch_size: int, seed: int) -> EpochBatches:
        """The batches of training."""
        return EpochBatches(self, EpochOrder(len(self), batch_size, seed))

    def share(self, indices: Tensor, positions: Tensor) -> Share:
        """The items at `indices` (B,), which have these positions (B,) in a batch."""
        numbers = indices.tolist()
        items = list(map(self.item, numbers) if self.threads == 1 else self._pool.map(self.item, numbers))
        labels = torch.tensor([item.label for item in items], dtype=torch.int64) if self.labelled else None
        arrays = {name: torch.stack([item.arrays[name] for item in items]) for name in self.array_names}
        return Share(torch.stack([item.values for item in items]), labels, positions, arrays)

    def some(self, count: int) -> tuple[Tensor, Tensor | None]:
        """(x0, y) of the first `count` items, or of all where there are fewer."""
        first = torch.arange(min(count, len(self)))
        share = self.share(first, first)
        x0 = share.values if self.spec.bins is None else self.spec.from_bins(share.values)
        return x0, share.labels

    def fingerprint(self, arrays: Iterable[str] = ()) -> str:
        """16 hexadecimal digits of SHA-256 over the number of items and the items that were probed."""
        digest = hashlib.sha256(f"{len(self)} {self.digests['']}".encode())
        for name in sorted(arrays):
            check_name(name, self.array_names, self.source)
            digest.update(f"{name} {self.digests[name]}".encode())
        return digest.hexdigest()[:16]

    def item(self, index: int) -> Item:
        """Item `index`. InputError that names it where it cannot be read or differs from the others."""
        where = f"{self.source}: item {index}"
        found = _read(self.dataset, index, where)
        values = _values(found.values, self.spec, where)
        label = _class(found.label, self.spec.num_classes, where) if self.labelled else None
        arrays = {}
        for name, shape in self.array_shapes.items():
            if name not in found.arrays:
                raise InputError(f"{where} has no array {name!r}, and the first item has one")
            array = _array(name, found.arrays[name], where)
            if tuple(array.shape) != shape:
                raise InputError(
                    f"{where}: {name!r} has shape {tuple(array.shape)}, and {shape} in the first item"
                )
            arrays[name] = array
        return Item(values, label, arrays)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(max_workers=self.threads, thread_name_prefix="items")


def torch_dataset(
    dataset: MapStyle | MapDataset[object],
    *,
    data_spec: DataSpec | None = None,
    classes: int | Sequence[str] | None = None,
    threads: int = 1,
    name: str | None = None,
    fingerprint: str | None = None,
    probe: int = 64,
) -> TorchDataset:
    """A map-style data set (`len(dataset)` and `dataset[i]`) as a source for `sf.train`.

    An item is a tensor, a pair (image, label), or a dict with "image" (or "x"), "label" (or "y") and further
    arrays of one shape each; text in a dict is ignored. A uint8 tensor is an image of 256 bins, (C, H, W); a
    floating-point tensor is continuous data of any shape. Items are not kept in memory. They must be the same
    whenever they are read, so that a resumed run goes on exactly: random changes belong into the training
    options `flip`, `shift` and `dequantize`. A subset is a `torch.utils.data.Subset`.

    Args:
        dataset: The data set.
        data_spec: What one item is. Default: found from the items that are probed; the range of continuous
            data is then (-1, 1) where they lie inside it, otherwise their smallest and largest value. With
            bins, floating-point items must lie on the bins of its range.
        classes: Names of the classes, or their number K; labels are integers 0 … K-1. () ignores the labels.
            Default: those of `data_spec`.
        threads: How many threads read items at the same time; more than 1 only if `dataset[i]` allows it.
        name: What the data set is called in messages and in the run. Default: the name of its class.
        fingerprint: Text that identifies the data, for items that are random. Default: the fingerprint is
            a hash of the number of items and of those that are probed.
        probe: How many items are read at once to check them, evenly spread over the data set.

    Returns:
        A source for `sf.train`.

    Raises:
        InputError: If an item cannot be read, is of another kind, or changes from one reading to the next;
            for iterable-style data sets, and for labels without `classes`.
    """
    items = _map_style(dataset)
    source = type(dataset).__name__ if name is None else name
    _check_numbers(len(items), threads, probe, source)
    chosen = sorted({k * len(items) // probe for k in range(probe)})
    where = f"{source}: item {chosen[0]}"
    first = _read(items, chosen[0], where)
    spec = _with_classes(data_spec or _spec_of(first.values, where), classes, first.label is not None, source)
    shapes = {key: tuple(_array(key, array, where).shape) for key, array in first.arrays.items()}
    found = TorchDataset(
        spec, items, source, shapes, dict.fromkeys(["", *shapes], fingerprint or ""), threads
    )
    indices = torch.tensor(chosen)
    share = found.share(indices, indices)
    if data_spec is None and spec.bins is None:
        found = replace(found, spec=replace(spec, range=range_of(share.values)))
    if fingerprint is not None:
        return found
    if _digests(found.share(indices[:1], indices[:1])) != _digests(_first(share)):
        raise InputError(
            f"{where} is another one each time it is read, so a run could not be resumed exactly: remove the random "
            "transforms and use the training options flip, shift and dequantize, or give fingerprint='a name for "
            "these data' to train all the same"
        )
    return replace(found, digests=_digests(share))


class _Raw(NamedTuple):
    """The parts of an item as the data set returns them."""

    values: Tensor
    label: object
    arrays: Mapping[str, object]


def _map_style(dataset: MapStyle | MapDataset[object]) -> MapStyle:
    kind = type(dataset).__name__
    if isinstance(dataset, IterableDataset):
        raise InputError(
            f"{kind} is iterable-style, so no step of its order can be asked for again: use a map-style data set "
            "(__len__ and __getitem__), or sf.data.stream for shards on the hub or in a folder"
        )
    if isinstance(dataset, DataLoader):
        raise InputError(
            "a DataLoader makes batches in an order of its own: give its data set (loader.dataset); training makes "
            "the batches"
        )
    if not isinstance(dataset, Sized):
        raise InputError(f"{kind} has no __len__: a map-style data set says how many items it has")
    return dataset


def _read(dataset: MapStyle, index: int, where: str) -> _Raw:
    try:
        found = dataset[index]
    except Exception as fault:  # code of the user's own may raise anything
        raise InputError(f"{where} cannot be read ({type(fault).__name__}: {reason_of(fault)})") from fault
    if isinstance(found, Mapping):
        return _of_dict(found, where)
    parts = found if isinstance(found, tuple | list) else (found,)
    if len(parts) not in (1, 2):
        raise InputError(f"{where} has {len(parts)} parts; expected {_ACCEPTED}")
    return _Raw(_tensor(parts[0], where), parts[1] if len(parts) == 2 else None, {})


def _of_dict(found: Mapping[str, object], where: str) -> _Raw:
    images = [key for key in ("image", "x") if key in found]
    labels = [key for key in ("label", "y") if key in found]
    if len(images) != 1 or len(labels) > 1:
        raise InputError(
            f"{where} is a dict with {', '.join(map(repr, found)) or 'nothing'}; expected {_ACCEPTED}"
        )
    arrays = {
        key: value
        for key, value in found.items()
        if key not in (*images, *labels) and isinstance(value, Tensor | np.ndarray | np.generic | int | float)
    }
    for key in arrays:
        if key in RESERVED:
            raise InputError(f"{where}: an array cannot be called {key!r}; expected {_ACCEPTED}")
    return _Raw(_tensor(found[images[0]], where), found[labels[0]] if labels else None, arrays)


def _tensor(value: object, where: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    raise InputError(
        f"{where} is a {type(value).__name__}; expected {_ACCEPTED}, with images as tensors "
        "(of Pillow images torchvision.transforms.PILToTensor makes uint8 tensors)"
    )


def _values(values: Tensor, spec: DataSpec, where: str) -> Tensor:
    """uint8 bins or continuous float32 values, as the spec says."""
    if tuple(values.shape) != spec.shape:
        raise InputError(f"{where} has shape {tuple(values.shape)}; expected {spec.shape}")
    if not values.is_floating_point():
        if values.dtype != torch.uint8 or spec.bins is None:
            raise InputError(
                f"{where} is {values.dtype}; expected {'floating point' if spec.bins is None else 'uint8'}"
            )
        if int(values.max()) >= spec.bins:
            raise InputError(f"{where} has the value {int(values.max())}; the bins are 0 … {spec.bins - 1}")
        return values
    values = values.float()
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{where} holds NaN or infinite values: repair or remove it")
    if spec.bins is None:
        return values
    try:
        return spec.exact_bins(values).to(torch.uint8)
    except InputError as fault:
        raise InputError(f"{where}: {fault}") from None


def _class(label: object, count: int, where: str) -> int:
    try:
        number = operator.index(label) if isinstance(label, SupportsIndex) else None
    except TypeError:  # of a tensor, which may hold anything
        number = None
    if number is None:
        raise InputError(
            f"{where} has the label {label!r}; expected an integer 0 … {count - 1}, or classes=() to ignore labels"
        )
    if not 0 <= number < count:
        raise InputError(f"{where} has the label {number}, and the {count} classes are 0 … {count - 1}")
    return number


def _array(name: str, value: object, where: str) -> Tensor:
    array = value.detach().cpu() if isinstance(value, Tensor) else np.asarray(value)
    if isinstance(array, np.ndarray) and not is_numeric(array.dtype):
        raise InputError(f"{where}: {name!r} must hold numbers or booleans, got {array.dtype}")
    return numeric_tensor(name, array[None], where)[0]


def _check_numbers(count: int, threads: int, probe: int, source: str) -> None:
    positive_int("threads", threads)
    positive_int("probe", probe)
    if not count:
        raise InputError(f"{source} is empty: there must be at least one item")


def _spec_of(values: Tensor, where: str) -> DataSpec:
    """What items are, as one of them shows; not the range of continuous data."""
    shape = tuple(values.shape)
    if values.dtype == torch.uint8 and len(shape) == 3:
        return DataSpec(shape, bins=256)
    if not values.is_floating_point() or not shape:
        raise InputError(
            f"{where} is {values.dtype} {shape}; expected uint8 images (C, H, W) or floating-point values (*shape)"
        )
    return DataSpec(shape)


def _with_classes(
    spec: DataSpec, classes: int | Sequence[str] | None, labelled: bool, source: str
) -> DataSpec:
    if classes is None:
        if labelled and not spec.classes:
            raise InputError(
                f"{source}: items have labels, and it is not said what they are: give sf.data.torch_dataset(dataset, "
                "classes=K) for the labels 0 … K-1, classes=[names], or classes=() to ignore them"
            )
        return spec
    if spec.classes:
        raise InputError("data_spec has classes already: leave `classes` out")
    if isinstance(classes, str) or (isinstance(classes, int) and classes < 1):
        raise InputError(f"classes is their number, at least 1, or a list of names; got {classes!r}")
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(map(str, classes))
    return replace(spec, classes=names)


def _first(share: Share) -> Share:
    labels = None if share.labels is None else share.labels[:1]
    return Share(share.values[:1], labels, share.positions[:1], {k: v[:1] for k, v in share.arrays.items()})


def _digests(share: Share) -> dict[str, str]:
    """SHA-256 of values and labels (under ""), and of each further array under its name."""
    values = [share.values] if share.labels is None else [share.values, share.labels]
    parts = {"": values, **{name: [array] for name, array in share.arrays.items()}}
    found = {}
    for name, tensors in parts.items():
        digest = hashlib.sha256()
        for tensor in tensors:
            add_tensor(digest, tensor)
        found[name] = digest.hexdigest()
    return found
