"""Arrays in .npz archives: what an archive says of them is compared with its size and with what is wanted before
any is loaded.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorefield.runtime.errors import InputError
from scorefield.runtime.free_memory import needs_memory
from scorefield.runtime.reading import open_file, reading

__all__ = ["ArrayHeader", "array_headers", "read_arrays"]

_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class ArrayHeader:
    """What an archive says of an array.

    Attributes:
        shape: Its shape.
        dtype: Its type.
        stored: Bytes that the archive has for its values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    stored: int

    @property
    def nbytes(self) -> int:
        """Bytes of its values."""
        return math.prod(self.shape) * max(1, self.dtype.itemsize)


def read_arrays(
    path: Path,
    source: str,
    names: Collection[str],
    needed: Collection[str],
    hint: str,
    check: Callable[[Mapping[str, ArrayHeader]], None] | None = None,
) -> dict[str, np.ndarray]:
    """Those of the named arrays that an .npz holds.

    Args:
        path: The file.
        source: What messages call it.
        names: The arrays to read.
        needed: Those of them that must be there.
        hint: What to do about a file that is no .npz, or lacks what is needed.
        check: Raises where the headers of these arrays are not what is wanted, before any is loaded.
    Raises:
        InputError: For such a file, and for one that cannot be read, is damaged, holds objects, or needs more memory
            than is free.
    """
    with _opened(path, source, hint) as archive:
        held = _arrays_of(archive)
        if missing := [name for name in needed if name not in held]:
            listed = ", ".join(f"`{name}`" for name in held) or "nothing"
            raise InputError(f"{source}: no `{missing[0]}` in this archive, it holds {listed}: {hint}")
        wanted = {name: held[name] for name in names if name in held}
        headers = {name: _header(archive, entry) for name, entry in wanted.items()}
        known = {name: header for name, header in headers.items() if header is not None}
        for name, header in known.items():
            if header.dtype.hasobject:
                raise InputError(f"{source}: cannot be read (`{name}`: object arrays are never loaded)")
        if check is not None:
            check(known)
        for name, header in known.items():
            _check_size(header, f"{source}: `{name}`")
        needs_memory(sum(header.nbytes for header in known.values()), source)
        return {name: _array(archive, entry) for name, entry in wanted.items()}


def array_headers(
    path: Path, source: str, hint: str = "expected arrays that np.savez wrote"
) -> dict[str, ArrayHeader]:
    """Of every array of an .npz, without loading any; entries of no known format are left out.

    InputError as `read_arrays`, for an archive that cannot be read.
    """
    with _opened(path, source, hint) as archive:
        headers = {name: _header(archive, entry) for name, entry in _arrays_of(archive).items()}
        return {name: header for name, header in headers.items() if header is not None}


@contextmanager
def _opened(path: Path, source: str, hint: str) -> Iterator[zipfile.ZipFile]:
    with open_file(path, "an .npz archive") as file, reading(source):
        if not zipfile.is_zipfile(file):
            raise InputError(f"{source}: not an .npz archive: {hint}")
        with zipfile.ZipFile(file) as archive:
            yield archive


def _arrays_of(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {
        entry.filename.removesuffix(".npy"): entry
        for entry in archive.infolist()
        if entry.filename.endswith(".npy")
    }


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> ArrayHeader | None:
    with archive.open(entry) as file:
        read = _READERS.get(np.lib.format.read_magic(file))
        if read is None:
            return None
        shape, _, dtype = read(file)
        return ArrayHeader(tuple(shape), dtype, entry.file_size - file.tell())


def _check_size(header: ArrayHeader, what: str) -> None:
    if min(header.shape, default=0) < 0 or header.nbytes != header.stored:
        raise InputError(
            f"{what} is damaged: {header.dtype} {header.shape} needs {header.nbytes:,} bytes, and the archive holds "
            f"{header.stored:,}"
        )


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(entry) as file:
        found: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        return found
