"""Files that a user names for results: what can be refused about them is refused before any work, and a file that
scorefield did not write is never replaced.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scorefield.runtime.atomic import is_partial, write_error
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import open_file

__all__ = ["MARK", "check_output", "is_folder_name", "is_free", "save_npz"]

MARK = "written by scorefield"  # as a comment of what is written by a name that the user chose
_HEAD, _TAIL = 4096, 256  # bytes of a file among which the mark is
_TYPE = re.compile(r"\.[a-z][a-z0-9]{0,4}", re.IGNORECASE)


def is_folder_name(path: Path) -> bool:
    """Whether results go into a folder of this name: it has no type, as `samples` and `samples_w1.5`."""
    return not _TYPE.fullmatch(path.suffix)


def is_free(folder: Path) -> bool:
    """Whether this is an empty folder, but for what a killed process has left in it, or nothing."""
    return not os.path.lexists(folder) or (folder.is_dir() and all(map(is_partial, folder.iterdir())))


def check_output(path: Path) -> None:
    """InputError unless a file can be written to this path.

    There is nothing, an empty file, or one that scorefield wrote; the folder is there and can be written.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a {path.suffix} file: choose another name")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}: create it first")
    if (error := write_error(path.parent)) is not None:
        raise unwritable(path, error)
    if os.path.lexists(path) and not _is_ours(path):
        raise InputError(
            f"{path} exists and was not written by scorefield: choose another name, or remove it first"
        )


def _is_ours(path: Path) -> bool:
    """Whether it says that scorefield wrote it, or is empty."""
    try:
        with open_file(path, "a file") as file:
            head = file.read(_HEAD)
            file.seek(-min(_TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
            return not head or MARK.encode() in head or MARK.encode() in file.read(_TAIL)
    except (InputError, OSError):  # a broken link, a pipe, a device, or of another user
        return False


def save_npz(path: Path, arrays: Mapping[str, np.ndarray], compressed: bool = True) -> None:
    """Write arrays with the mark, under a temporary name."""
    save = np.savez_compressed if compressed else np.savez
    with path.open("xb") as file:
        save(file, allow_pickle=False, **arrays)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = MARK.encode()
