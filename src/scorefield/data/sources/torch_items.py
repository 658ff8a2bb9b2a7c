"""Items of a map-style data set: what each may be, and the errors that name it."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import NamedTuple, Protocol, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec, are_images
from scorefield.data.arrays import RESERVED, is_numeric, numeric_tensor
from scorefield.data.images.unreadable import reason_of
from scorefield.runtime.errors import InputError

__all__ = ["MapStyle", "RawItem", "as_array", "as_class", "as_values", "read_item"]

_ACCEPTED = (
    'a tensor, a pair (image, label), or a dict with "image" (or "x"), "label" (or "y") and further arrays'
)


class MapStyle(Protocol):
    """What is read: `len(dataset)` items, `dataset[index]` for each index from 0."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> object: ...


class RawItem(NamedTuple):
    """The parts of an item as the data set returns them."""

    values: Tensor
    label: object
    arrays: Mapping[str, object]


def read_item(dataset: MapStyle, index: int, where: str) -> RawItem:
    """dataset[index], in its parts.

    Raises:
        InputError: If it cannot be read or has other parts; the message begins with `where`.
    """
    try:
        found = dataset[index]
    except Exception as fault:  # code of the user's own may raise anything
        raise InputError(f"{where} cannot be read ({type(fault).__name__}: {reason_of(fault)})") from fault
    if isinstance(found, Mapping):
        return _of_dict(found, where)
    parts = found if isinstance(found, tuple | list) else (found,)
    if len(parts) not in (1, 2):
        raise InputError(f"{where} has {len(parts)} parts; expected {_ACCEPTED}")
    return RawItem(_tensor(parts[0], where), parts[1] if len(parts) == 2 else None, {})


def _of_dict(found: Mapping[str, object], where: str) -> RawItem:
    images = [key for key in ("image", "x") if key in found]
    labels = [key for key in ("label", "y") if key in found]
    if len(images) != 1 or len(labels) > 1:
        raise InputError(
            f"{where} is a dict with {', '.join(map(repr, found)) or 'nothing'}; expected {_ACCEPTED}"
        )
    arrays = {
        key: value for key, value in found.items() if key not in (*images, *labels) and _is_number(value)
    }
    for key in arrays:
        if key in RESERVED:
            raise InputError(f"{where}: an array cannot be called {key!r}; expected {_ACCEPTED}")
    return RawItem(_tensor(found[images[0]], where), found[labels[0]] if labels else None, arrays)


def _is_number(value: object) -> bool:
    """Whether a value of a dict is numbers or booleans; others, such as text, are ignored."""
    if isinstance(value, np.ndarray | np.generic):
        return is_numeric(value.dtype)
    return isinstance(value, Tensor | int | float)


def _tensor(value: object, where: str) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    raise InputError(
        f"{where} is a {type(value).__name__}; expected {_ACCEPTED}, with images as tensors "
        "(of Pillow images torchvision.transforms.PILToTensor makes uint8 tensors)"
    )


def as_values(values: Tensor, spec: DataSpec, where: str) -> Tensor:
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
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{where} holds NaN or infinite values: repair or remove it")
    if spec.bins is None:
        if are_images(spec.shape) and not (spec.range[0] <= low and high <= spec.range[1]):
            raise InputError(
                f"{where} has values {low:g} … {high:g}, outside the range {spec.range}: give the range that all items lie in "
                "(data_spec=sf.DataSpec(shape, range=(low, high)))"
            )
        return values
    try:
        return spec.exact_bins(values).to(torch.uint8)
    except InputError as fault:
        raise InputError(f"{where}: {fault}") from None


def as_class(label: object, count: int, where: str) -> int:
    """A label as an integer 0 … count-1; InputError for everything else."""
    try:
        number = operator.index(label) if isinstance(label, SupportsIndex) else None
    except TypeError:  # of a tensor, which may hold anything
        number = None
    if number is None:
        raise InputError(
            f"{where} has the label {label!r}; expected an integer 0 … {count - 1}, or classes=() to ignore "
            "labels"
        )
    if not 0 <= number < count:
        raise InputError(f"{where} has the label {number}, and the {count} classes are 0 … {count - 1}")
    return number


def as_array(name: str, value: object, where: str) -> Tensor:
    """An entry of a further array, (*): numbers or booleans; InputError for NaN and infinite values."""
    array = value.detach().cpu() if isinstance(value, Tensor) else np.asarray(value)
    return numeric_tensor(name, array[None], where)[0]
