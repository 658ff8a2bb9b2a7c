"""Data sets of one's own: any map-style `torch.utils.data.Dataset`, read item by item while training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as MapDataset

from scorefield.core.shapes import DataSpec
from scorefield.data.arrays import add_tensor, check_name
from scorefield.data.base import Microbatch, Share, microbatch
from scorefield.data.dataset import range_of
from scorefield.data.images.unreadable import UnreadableLog
from scorefield.data.loading.epoch_order import EpochBatches, EpochOrder
from scorefield.data.sources.torch_items import MapStyle, as_array, as_class, as_values, read_item
from scorefield.data.summary import examples_in_words
from scorefield.runtime.checks import brief, positive_int
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import reading

__all__ = ["TorchDataset", "torch_dataset"]


class Item(NamedTuple):
    """One item: values (*shape) as uint8 or float32, its label, and further arrays (*) by name."""

    values: Tensor
    label: int | None
    arrays: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False, repr=False)
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

    def __repr__(self) -> str:
        said = [repr(self.source), f"{len(self):,} items of {self.spec.shape}"]
        said += [f"{self.spec.num_classes} classes"] if self.labelled else []
        said += [f"arrays {', '.join(self.array_names)}"] if self.array_shapes else []
        return f"TorchDataset({', '.join(said)})"

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def examples(self) -> int:
        """The number of items."""
        return len(self)

    @property
    def labelled(self) -> bool:
        """Whether every item has a label, an index into spec.classes."""
        return bool(self.spec.classes)

    @property
    def counts(self) -> tuple[int, ...]:
        """Items are not read to count their classes."""
        return ()

    @property
    def in_memory(self) -> bool:
        """False: items are read by a thread of their own, and reading can fail."""
        return False

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of the further arrays, sorted."""
        return tuple(sorted(self.array_shapes))

    @property
    def versions(self) -> Mapping[str, str]:
        """Nothing: the order depends on the seed alone."""
        return {}

    @property
    def reading(self) -> tuple[str, ...]:
        """What was read, in sentences."""
        return (examples_in_words(self.spec, None, self.array_names, self.labelled),)

    def order(self, batch_size: int, seed: int) -> EpochBatches:
        """The batches of training.

        Args:
            batch_size: Examples of a step, over all processes.
            seed: Of the order, from 0 to 2**64 − 1.
        """
        return EpochBatches(self, EpochOrder(len(self), batch_size, seed))

    def share(self, indices: Tensor, positions: Tensor) -> Share:
        """Some items as a process's share of a batch.

        Args:
            indices: (B,) int64, which items.
            positions: (B,) int64, their places in the batch.
        """
        numbers = indices.tolist()
        items = list(map(self.item, numbers) if self.threads == 1 else self._pool.map(self.item, numbers))
        labels = torch.tensor([item.label for item in items], dtype=torch.int64) if self.labelled else None
        arrays = {name: torch.stack([item.arrays[name] for item in items]) for name in self.array_names}
        return Share(torch.stack([item.values for item in items]), labels, positions, arrays)

    def some(self, count: int) -> Microbatch:
        """The first items.

        Args:
            count: How many, or all where there are fewer.
        """
        first = torch.arange(min(count, len(self)))
        return microbatch(self.share(first, first), self.spec)

    def fingerprint(self, arrays: Iterable[str] = ()) -> str:
        """16 hexadecimal digits of SHA-256 over the number of items and the items that were probed.

        Args:
            arrays: Names of further arrays that it covers too.

        Raises:
            InputError: For an array that the items do not have.
        """
        digest = hashlib.sha256(f"{len(self)} {self.digests['']}".encode())
        for name in sorted(arrays):
            check_name(name, self.array_names, self.source)
            digest.update(f"{name} {self.digests[name]}".encode())
        return digest.hexdigest()[:16]

    def item(self, index: int) -> Item:
        """One item, checked.

        Args:
            index: From 0.

        Raises:
            InputError: Where it cannot be read or differs from the others; it names the item.
        """
        where = f"{self.source}: item {index}"
        found = read_item(self.dataset, index, where)
        values = as_values(found.values, self.spec, where)
        label = as_class(found.label, self.spec.num_classes, where) if self.labelled else None
        arrays = {}
        for name, shape in self.array_shapes.items():
            if name not in found.arrays:
                raise InputError(f"{where} has no array {name!r}, and the first item has one")
            array = as_array(name, found.arrays[name], where)
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
        data_spec: What one item is. Default: found from the items that are probed, with the range as `sf.data.tensor`
            finds it: of floating-point images without negative values it must be given.
            With bins, floating-point items must lie on the bins of its range.
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
    with reading(f"the length of {source}"):
        count = len(items)
    _check_numbers(count, threads, probe, source)
    chosen = sorted({k * count // probe for k in range(probe)})
    where = f"{source}: item {chosen[0]}"
    first = read_item(items, chosen[0], where)
    spec = _with_classes(data_spec or _spec_of(first.values, where), classes, first.label is not None, source)
    shapes = {key: tuple(as_array(key, array, where).shape) for key, array in first.arrays.items()}
    found = TorchDataset(
        spec, items, source, shapes, dict.fromkeys(["", *shapes], fingerprint or ""), threads
    )
    indices = torch.tensor(chosen)
    share = found.share(indices, indices)
    if data_spec is None and spec.bins is None:
        advice = (
            f"say it by sf.data.torch_dataset(dataset, data_spec=sf.DataSpec({spec.shape}, range=(0, 1)))"
        )
        found = replace(found, spec=replace(spec, range=range_of(share.values, source, advice)))
    return found if fingerprint is not None else _with_digests(found, share)


def _map_style(dataset: MapStyle | MapDataset[object]) -> MapStyle:
    kind = type(dataset).__name__
    if isinstance(dataset, IterableDataset):
        raise InputError(
            f"{kind} is iterable-style, so a step cannot be read again when training resumes: use a map-style "
            "data set (__len__ and __getitem__), or sf.data.stream for shards on the hub or in a folder"
        )
    if isinstance(dataset, DataLoader):
        raise InputError(
            "a DataLoader has its own order of batches: give its data set (loader.dataset) instead; training "
            "makes the batches"
        )
    if not isinstance(dataset, Sized):
        raise InputError(
            f"a map-style data set has __len__ and __getitem__, and {brief(dataset)} has no __len__"
        )
    if not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"a map-style data set has __len__ and __getitem__, and {brief(dataset)} has no __getitem__ (train on data of "
            "sf.data as they are)"
        )
    return dataset


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
            f"{where} is {values.dtype} {shape}; expected uint8 images (C, H, W) or floating-point values "
            "(*shape)"
        )
    return DataSpec(shape)


def _with_classes(
    spec: DataSpec, classes: int | Sequence[str] | None, labelled: bool, source: str
) -> DataSpec:
    if classes is None:
        if labelled and not spec.classes:
            raise InputError(
                f"{source}: items have labels, but the number of classes is not known: give "
                "sf.data.torch_dataset(dataset, classes=K) for the labels 0 … K-1, classes=[names], or classes=() to "
                "ignore them"
            )
        return spec
    if spec.classes:
        raise InputError("data_spec has classes already: remove `classes`")
    if isinstance(classes, str) or (isinstance(classes, int) and classes < 1):
        raise InputError(f"classes is their number, at least 1, or a list of names; got {classes!r}")
    names = tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(map(str, classes))
    return replace(spec, classes=names)


def _with_digests(data: TorchDataset, probed: Share) -> TorchDataset:
    """The data with the digests of what was probed; InputError where an item changes when read again."""
    index = probed.positions[:1]  # which are the indices here
    labels = None if probed.labels is None else probed.labels[:1]
    arrays = {name: array[:1] for name, array in probed.arrays.items()}
    if _digests(data.share(index, index)) != _digests(Share(probed.values[:1], labels, index, arrays)):
        raise InputError(
            f"{data.source}: item {int(index)} differs each time it is read, so a run could not be resumed "
            "exactly: remove the random transforms and use the training options flip, shift and dequantize, or "
            "give fingerprint='a name for these data' to train anyway"
        )
    return replace(data, digests=_digests(probed))


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
