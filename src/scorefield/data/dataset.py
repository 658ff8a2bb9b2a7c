"""Examples that are all at hand: what most sources return, and what training and evaluation read."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec, are_images
from scorefield.data.arrays import add_tensor, check_arrays, check_name, numeric_tensor
from scorefield.data.base import Microbatch, Share, microbatch
from scorefield.data.class_names import class_numbers, numbered
from scorefield.data.images.lazy import LazyImages
from scorefield.data.images.unreadable import UnreadableLog
from scorefield.data.loading.epoch_order import EpochBatches, EpochOrder, permutation
from scorefield.data.summary import examples_in_words, skipped_in_words
from scorefield.runtime.checks import brief, check_finite, instance_of, numbers
from scorefield.runtime.errors import InputError
from scorefield.runtime.free_memory import needs_memory

__all__ = ["Dataset", "number_labels", "range_of", "tensor"]

_MANY = 16  # numbers of an example from which whole numbers 0 … 255 are taken for pixels
_SPLIT_STREAM = 1  # apart from the stream (0) that training's order draws from the same seed


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """N examples, with optional labels and further arrays.

    Attributes:
        spec: What one example is.
        values: uint8 (N, C, H, W) in 0 … spec.bins-1, or float32 (N, *spec.shape) where spec.bins is None
            (continuous data). Images that do not fit in memory are decoded when they are indexed.
        labels: int64 (N,), indices into spec.classes, or None.
        source: What the user named.
        skipped: Names of the files that could not be read.
        first_of: The fingerprint of the stream that these are the first examples of.
        arrays: Further arrays (N, *) by name, each bool, uint8, int64 or float32.
        reasons: Why each of the files in `skipped` could not be read.
        notes: What is to be known of how the data were read, in sentences.
        read_as: The table [data] of a recipe that reads the same data: `source` with its options, and of the training
            part of a split also `holdout` and `split_seed`. Empty where no recipe can read them, such as for tensors.

    Raises:
        InputError: If types, shapes or values do not agree with each other.
    """

    spec: DataSpec
    values: Tensor | LazyImages
    labels: Tensor | None
    source: str
    skipped: tuple[str, ...] = ()
    first_of: str | None = None
    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    read_as: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bins = instance_of("spec", self.spec, DataSpec, "a DataSpec").bins
        if not isinstance(self.values, Tensor | LazyImages):
            raise InputError(f"{self.source}: values must be a tensor (N, *), got {brief(self.values)}")
        wanted = torch.float32 if bins is None else torch.uint8
        if self.values.dtype != wanted or tuple(self.values.shape[1:]) != self.spec.shape:
            raise InputError(
                f"{self.source}: expected examples of {wanted} (N, {', '.join(map(str, self.spec.shape))}), "
                f"got {self.values.dtype} {tuple(self.values.shape)}"
            )
        if (
            bins is not None
            and len(self)
            and isinstance(self.values, Tensor)
            and int(self.values.max()) >= bins
        ):
            raise InputError(
                f"{self.source}: the value {int(self.values.max())} is not one of the {bins} bins 0 … "
                f"{bins - 1}"
            )
        check_arrays(self.arrays, len(self), self.source)
        if self.labels is None:
            return
        instance_of("labels", self.labels, Tensor, "a tensor (N,) of int64")
        if self.labels.dtype != torch.int64 or tuple(self.labels.shape) != (len(self),):
            raise InputError(
                f"{self.source}: expected one int64 label for each of {len(self)} examples, "
                f"got {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if len(self) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.spec.num_classes:
            raise InputError(
                f"{self.source}: labels run from {int(self.labels.min())} to {int(self.labels.max())}, "
                f"but there are {self.spec.num_classes} classes"
            )

    def __repr__(self) -> str:
        said = [repr(self.source), f"{len(self):,} examples of {tuple(self.spec.shape)}"]
        said += [f"{self.spec.num_classes} classes"] if self.labels is not None else []
        said += [f"arrays {', '.join(self.arrays)}"] if self.arrays else []
        return f"Dataset({', '.join(said)})"

    def __len__(self) -> int:
        return int(self.values.shape[0])

    @property
    def examples(self) -> int:
        """N."""
        return len(self)

    @property
    def array_names(self) -> tuple[str, ...]:
        """Names of the further arrays, sorted."""
        return tuple(sorted(self.arrays))

    @property
    def versions(self) -> Mapping[str, str]:
        """Nothing: the order depends on the seed alone."""
        return {}

    @property
    def in_memory(self) -> bool:
        """Whether all values are in memory, rather than decoded when they are indexed."""
        return isinstance(self.values, Tensor)

    @property
    def labelled(self) -> bool:
        """Whether every example has a label."""
        return self.labels is not None

    @property
    def unreadable(self) -> UnreadableLog:
        """The files that could not be used: those in `skipped`, or, of images decoded on demand, those met so
        far.
        """
        if not isinstance(self.values, Tensor):
            return self.values.unreadable
        found = UnreadableLog()
        for name, reason in zip_longest(self.skipped, self.reasons, fillvalue=""):
            found.add(name, reason)
        return found

    @property
    def counts(self) -> tuple[int, ...]:
        """Examples of each class; nothing without labels."""
        if self.labels is None:
            return ()
        return tuple(torch.bincount(self.labels, minlength=self.spec.num_classes).tolist())

    @property
    def reading(self) -> tuple[str, ...]:
        """What was read, in sentences: shape, values and classes, what was skipped, and what else is to be known."""
        words = examples_in_words(self.spec, self.counts, self.array_names, self.labelled)
        skipped = skipped_in_words(self.skipped, self.reasons)
        return (words, *([skipped] if skipped else []), *self.notes)

    def everything(self) -> Tensor:
        """The values of all examples at once, (N, *)."""
        return self.values if isinstance(self.values, Tensor) else self.values[torch.arange(len(self))]

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """(x0, y) of some examples.

        Args:
            indices: (B,) int64.

        Returns:
            x0, float32 (B, *spec.shape) in spec.range, and y, int64 (B,), or None for data without labels.
        """
        _check_indices(indices, len(self))
        values = self.values[indices]
        x0 = values if self.spec.bins is None else self.spec.from_bins(values)
        return x0, None if self.labels is None else self.labels[indices]

    def arrays_at(self, indices: Tensor) -> dict[str, Tensor]:
        """The further arrays of some examples, each (B, *).

        Args:
            indices: (B,) int64.
        """
        return {name: array[indices] for name, array in self.arrays.items()}

    def some(self, count: int) -> Microbatch:
        """The first examples.

        Args:
            count: How many, or all where there are fewer.
        """
        first = torch.arange(min(count, len(self)))
        return microbatch(self.share(first, first), self.spec)

    def share(self, indices: Tensor, positions: Tensor) -> Share:
        """Some examples as a process's share of a batch.

        Args:
            indices: (B,) int64, which examples.
            positions: (B,) int64, their places in the batch.
        """
        labels = None if self.labels is None else self.labels[indices]
        return Share(self.values[indices], labels, positions, self.arrays_at(indices))

    def order(self, batch_size: int, seed: int) -> EpochBatches:
        """The batches of training.

        Args:
            batch_size: Examples of a step, over all processes.
            seed: Of the order, from 0 to 2**64 − 1.
        """
        return EpochBatches(self, EpochOrder(len(self), batch_size, seed))

    def subset(self, indices: Tensor) -> Dataset:
        """Some examples, in that order, with the same classes.

        Args:
            indices: (M,) int64.

        Raises:
            InputError: For indices of examples that there are not, and where memory does not hold the copy.
        """
        _check_indices(indices, len(self))
        if isinstance(self.values, Tensor):
            size = len(indices) * self.spec.dimensions * self.values.dtype.itemsize
            needs_memory(size, f"{self.source}: a copy of {len(indices):,} of its {len(self):,} examples")
        labels = None if self.labels is None else self.labels[indices]
        values = self.values[indices] if isinstance(self.values, Tensor) else self.values.subset(indices)
        return replace(self, values=values, labels=labels, arrays=self.arrays_at(indices), read_as={})

    def numbered_as(self, classes: Sequence[str]) -> Dataset:
        """The same examples with the classes of a model, and labels in its numbering.

        Classes "0" … "K−1" have no names: K classes of other names are then these, in their order.

        Args:
            classes: The model's, 0 … K−1.

        Raises:
            InputError: For a class that is none of these.
        """
        known = tuple(classes)
        if self.labels is None or known == self.spec.classes:
            return self
        used = self.labels.unique().tolist()
        try:
            names = [self.spec.classes[label] for label in used]
            numbers = class_numbers(names, known, source=self.source)
        except InputError:
            if known != numbered(self.spec.num_classes):
                raise
            numbers = used
        table = torch.zeros(self.spec.num_classes, dtype=torch.int64)
        table[used] = torch.tensor(numbers, dtype=torch.int64)
        return replace(self, spec=replace(self.spec, classes=known), labels=table[self.labels], read_as={})

    def split(self, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
        """Hold out ⌈fraction·N⌉ examples, classes in proportion; each part keeps the order of the data.

        Counts are exact (decimal arithmetic), and the choice depends on (N, labels, fraction, seed) alone.
        Training keeps at least one example, and one of every class where the total allows it. A run trained on the
        first part records the split, so that its evaluation finds the held-out examples (`read_as`).

        Args:
            fraction: Share of the examples to hold out, in [0, 1).
            seed: Seed of the choice.

        Returns:
            The examples for training and the held-out ones.

        Raises:
            InputError: For another fraction, and for a single example.
        """
        if not isinstance(fraction, int | float) or not 0 <= fraction < 1:
            raise InputError(f"the held-out fraction must be at least 0 and below 1, got {brief(fraction)}")
        if fraction > 0 and len(self) < 2:
            raise InputError(
                f"{self.source}: {len(self)} example cannot be split: set the held-out fraction to 0 or add data"
            )
        labels = np.zeros(len(self), dtype=np.int64) if self.labels is None else self.labels.numpy()
        shuffled = permutation(len(self), seed, stream=_SPLIT_STREAM)
        held = np.zeros(len(self), dtype=bool)
        for label, count in enumerate(_quotas(np.bincount(labels), Fraction(str(fraction)))):
            held[shuffled[labels[shuffled] == label][:count]] = True
        train, heldout = (torch.from_numpy(np.flatnonzero(part)) for part in (~held, held))
        read_as: dict[str, object] = {}
        if self.read_as and "holdout" not in self.read_as:  # a recipe splits once
            read_as = {**self.read_as, "holdout": fraction, "split_seed": seed}
        kept = self.subset(train) if len(heldout) else self
        return replace(kept, read_as=read_as), self.subset(heldout)

    def fingerprint(self, arrays: Iterable[str] = ()) -> str:
        """16 hexadecimal digits of SHA-256 over values and labels with their types and shapes.

        Of images that are decoded on demand: over the names, classes and image size of the files.

        Args:
            arrays: Names of the further arrays to cover. Default: none, so that what does not use them knows
                the same examples with and without them.

        Raises:
            InputError: If the data have no array of such a name.
        """
        digest = hashlib.sha256()
        if isinstance(self.values, Tensor):
            add_tensor(digest, self.values)
            if self.labels is not None:
                add_tensor(digest, self.labels)
        else:
            digest.update(self.values.digest())
        for name in sorted(arrays):
            check_name(name, self.array_names, self.source)
            digest.update(name.encode())
            add_tensor(digest, self.arrays[name])
        return digest.hexdigest()[:16]


def _quotas(counts: np.ndarray, fraction: Fraction) -> list[int]:
    """Examples to hold out of each class: ⌊fraction·count⌋, and one more by largest remainder until there are
    ⌈fraction·N⌉.

    The last example of a class is held out only when all other classes have given their share.
    """
    size = int(counts.sum())
    total = min(math.ceil(fraction * size), max(size - 1, 0))
    exact = [fraction * int(count) for count in counts]
    quotas = [math.floor(share) for share in exact]
    by_remainder = sorted(
        range(len(counts)), key=lambda k: (quotas[k] + 1 == counts[k], quotas[k] - exact[k], k)
    )
    for k in [k for k in by_remainder if quotas[k] < counts[k]][: total - sum(quotas)]:
        quotas[k] += 1
    return quotas


def _check_indices(indices: object, count: int) -> None:
    wanted = f"integers (B,) from 0 to {count - 1}"
    found = instance_of("indices", indices, Tensor, f"a tensor of {wanted}")
    if found.ndim != 1 or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise InputError(f"indices must be {wanted}, got {found.dtype} {tuple(found.shape)}")
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < count:
        raise InputError(f"indices must be {wanted}, got {int(found.min())} to {int(found.max())}")


def number_labels(labels: np.ndarray, source: str) -> tuple[Tensor, tuple[str, ...]]:
    """Labels as indices into their sorted distinct values.

    Args:
        labels: Integers of any range, or text, (N,).
        source: What the user named, for messages.

    Returns:
        int64 (N,) in 0 … K-1, and the K class names in ascending order.

    Raises:
        InputError: For other types and shapes.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(
            f"{source}: labels must be integers or text, one per example (N,); got {labels.dtype} "
            f"{labels.shape}"
        )
    names, numbers = np.unique(labels, return_inverse=True)
    if labels.dtype.kind == "U" and any("\ud800" <= c <= "\udfff" for name in names for c in str(name)):
        raise InputError(
            f"{source}: the name of a class holds a lone surrogate, which cannot be written to a file: rename it"
        )
    return torch.from_numpy(numbers.astype(np.int64)), tuple(str(name) for name in names)


def range_of(values: Tensor, source: str, advice: str) -> tuple[float, float]:
    """The range of continuous values, where it needs no guess.

    It is (−1, 1) where all values lie inside that, otherwise their smallest and largest value. Images without negative
    values could mean several: 0 … 1, or the brighter half of −1 … 1.

    Args:
        values: (N, *shape).
        source: What messages call them.
        advice: How to give the range.

    Raises:
        InputError: For images without negative values, and for what looks like 8-bit pixels.
    """
    low, high = float(values.min()), float(values.max())
    images = are_images(values.shape[1:])
    bytes_ = low >= 0 and 1 < high <= 255 and (images or values[0].numel() >= _MANY)
    if bytes_ and bool((values == values.round()).all()):
        raise InputError(
            f"{source}: the values are whole numbers {low:g} … {high:g}, as of 8-bit pixels, and are given as floating "
            f"point: give them as uint8 (x.to(torch.uint8)), or scale them to -1 … 1 (x / 127.5 - 1)"
        )
    if images and low >= 0:
        raise InputError(
            f"{source}: the values of the images are {low:.4g} … {high:.4g}, which does not say what black and white are: "
            f"{advice}, or scale them to -1 … 1"
        )
    if low >= -1.0 and high <= 1.0:
        return -1.0, 1.0
    return (low, high) if low < high else (low - 1.0, high + 1.0)  # a constant still needs a range


def tensor(
    x: Tensor, y: Tensor | None = None, *, range: tuple[float, float] | None = None, **arrays: Tensor
) -> Dataset:
    """Examples in memory: images as uint8 (256 bins), or continuous data as floating point (spec.bins is None).

    Args:
        x: uint8 images (N, C, H, W), or floating point (N, *shape), copied as float32.
        y: Labels, integers (N,) of any range; their sorted values become the class names.
        range: Of floating point: what black and white are, which all values must lie between; of uint8: what 0 and
            255 become. Default: (−1, 1) for uint8 and for values that lie there, otherwise their smallest and largest
            value. Of floating-point images without negative values it must be given.
        arrays: Further arrays (N, *) by name, numbers or booleans.

    Raises:
        InputError: For other types and shapes, NaN and infinite values, and for images of which the range must be given.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"examples are a tensor (N, *shape), got a {type(x).__name__}: use torch.from_numpy")
    if x.ndim < 2 or not len(x) or not (x.is_floating_point() or x.dtype == torch.uint8):
        hint = ": use x[:, None] for single numbers" if x.ndim == 1 else ""
        raise InputError(
            f"examples must be uint8 images (N, C, H, W), or floating point (N, *shape), N at least 1; got {x.dtype} "
            f"{tuple(x.shape)}{hint}"
        )
    if x.dtype == torch.uint8:
        _check_channels_first(tuple(x.shape))
    if x.layout != torch.strided or x.is_meta:
        raise InputError(
            f"examples must be a dense tensor with values, got one of {x.layout} on {x.device}: convert it by .to_dense()"
        )
    dtype = torch.uint8 if x.dtype == torch.uint8 else torch.float32
    needs_memory(x.numel() * dtype.itemsize, f"a copy of {len(x):,} examples")
    values = x.detach().to("cpu", dtype, copy=True)
    values = values.contiguous()
    check_finite(values, "examples", "remove them first")
    if y is not None:
        y = instance_of("labels y", y, Tensor, "a tensor of integers (N,)").detach().cpu()
    labels, classes = (None, ()) if y is None else number_labels(y.numpy(), "tensor")
    if labels is not None and len(labels) != len(values):
        raise InputError(f"there are {len(values)} examples but {len(labels)} labels")
    further = {name: numeric_tensor(name, array, "tensor") for name, array in arrays.items()}
    bins = 256 if values.dtype == torch.uint8 else None
    if range is None:
        advice = "give their range, sf.data.tensor(x, range=(0, 1))"
        range = (-1.0, 1.0) if bins else range_of(values, "tensor", advice)
    spec = DataSpec(tuple(values.shape[1:]), tuple(numbers("range", range, 1).tolist()), classes, bins)
    low, high = spec.range
    if bins is None and not (low <= float(values.min()) and float(values.max()) <= high):
        raise InputError(
            f"tensor: the values are {float(values.min()):g} … {float(values.max()):g}, outside range=({low:g}, {high:g}): "
            "give the range that they lie in"
        )
    return Dataset(spec, values, labels, "tensor", arrays=further)


def _check_channels_first(shape: tuple[int, ...]) -> None:
    """InputError for uint8 images whose channels come last, or are left out."""
    if len(shape) == 3 or (len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3)):
        how = "x[:, None]" if len(shape) == 3 else "x.permute(0, 3, 1, 2)"
        raise InputError(f"uint8 images have the shape (N, C, H, W), got {shape}: use {how}")
