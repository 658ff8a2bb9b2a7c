"""Further arrays of a data set: a mask, an embedding or attributes, one entry per example."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from scorefield.runtime.checks import brief, check_finite, instance_of
from scorefield.runtime.errors import InputError

__all__ = ["RESERVED", "add_tensor", "check_arrays", "check_name", "is_numeric", "numeric_tensor"]

RESERVED = ("x", "y", "images", "labels")  # what examples and their labels are called
_DTYPES = (torch.bool, torch.uint8, torch.int64, torch.float32)


def is_numeric(dtype: np.dtype[np.generic]) -> bool:
    """Whether arrays of this type can be further arrays: booleans, integers and real numbers."""
    return dtype.kind in "biuf"


def numeric_tensor(name: str, array: Tensor | np.ndarray, source: str) -> Tensor:
    """An array (N, *) as a tensor on the CPU: bool and uint8 unchanged, other integers int64, floats float32.

    Raises:
        InputError: For another type, and for values that are not finite or do not fit.
    """
    if not isinstance(array, np.ndarray | Tensor):
        raise InputError(f"{source}: `{name}` must be an array or a tensor, got a {type(array).__name__}")
    if isinstance(array, np.ndarray):
        if not is_numeric(array.dtype):
            raise InputError(f"{source}: `{name}` must hold numbers or booleans, got {array.dtype}")
        if array.dtype == np.uint64 and array.size and int(array.max()) >= 2**63:
            raise InputError(f"{source}: `{name}` holds integers of 2**63 and more, which int64 cannot hold")
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):  # found below, with the other infinite values
                array = array.astype(np.float32)
        elif array.dtype not in (np.bool_, np.uint8):
            array = array.astype(np.int64)
        found = torch.from_numpy(np.ascontiguousarray(array))
    else:
        found = array.detach().cpu().contiguous()
        if found.is_complex():
            raise InputError(f"{source}: `{name}` must hold real numbers, got {found.dtype}")
        if found.is_floating_point():
            found = found.float()
        elif found.dtype not in _DTYPES:
            found = found.long()
    if found.is_floating_point():
        check_finite(found, f"entries of `{name}` in {source}", "remove these examples first")
    return found


def check_arrays(arrays: Mapping[str, Tensor], count: int, source: str) -> None:
    """InputError unless each is one of the accepted types, with one entry for each of `count` examples."""
    if not isinstance(arrays, Mapping):
        raise InputError(f"{source}: arrays must be a table of tensors by name, got {brief(arrays)}")
    for name, array in arrays.items():
        instance_of(f"{source}: `{name}`", array, Tensor, "a tensor (N, *)")
        if name in RESERVED:
            raise InputError(
                f"{source}: the name {name!r} is reserved for examples and labels: rename this array"
            )
        if array.dtype not in _DTYPES or array.ndim < 1 or len(array) != count:
            raise InputError(
                f"{source}: `{name}` must hold one entry for each of {count} examples, as "
                f"{', '.join(str(dtype).removeprefix('torch.') for dtype in _DTYPES)}; "
                f"got {array.dtype} {tuple(array.shape)}"
            )


def check_name(name: str, names: Collection[str], source: str) -> None:
    """InputError unless the data have an array of this name."""
    if name not in names:
        held = ", ".join(sorted(names)) or "none"
        raise InputError(f"{source}: there is no array {name!r}; further arrays here: {held}")


def add_tensor(digest: hashlib._Hash, tensor: Tensor) -> None:
    """Hash a tensor on the CPU: its type, its shape and its values, the same on every machine."""
    array = np.ascontiguousarray(tensor.numpy())
    digest.update(f"{array.dtype.name}{array.shape}".encode())
    digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
