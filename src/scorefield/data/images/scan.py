"""List the images of a folder and their classes, by name only, so that millions of files take seconds."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorefield.data.images.read import EXTENSIONS
from scorefield.runtime.errors import InputError
from scorefield.runtime.printable import one_line

__all__ = ["Listing", "list_images", "text"]

_DEEPEST = 100  # folders inside each other
_WAYS = 64  # in which links may lead to one folder
_FOLDERS = 100_000
_SHOWN = 200  # characters of a path in an error


@dataclass(frozen=True, eq=False)
class Listing:
    """The images under `root` in the order of their sorted paths.

    Names lie end to end in one buffer: about 40 bytes per file.

    Attributes:
        root: The folder.
        classes: Names of the classes, sorted; empty without classes.
        labels: int64 (N,), indices into `classes`, or None without classes.
    """

    root: Path
    classes: tuple[str, ...]
    labels: np.ndarray | None
    _names: bytes
    _ends: np.ndarray

    def __len__(self) -> int:
        return len(self._ends)

    def content(self, number: int) -> Path:
        return self.root / self._relative(number)

    def name(self, number: int) -> str:
        """The path under the root, as printable text."""
        return text(self._relative(number))

    def files(self) -> Iterator[tuple[str, Path]]:
        """(name, path) of every image."""
        return ((self.name(number), self.content(number)) for number in range(len(self)))

    def digest(self) -> bytes:
        """SHA-256 over names and labels, not over the contents of the files."""
        found = hashlib.sha256(self._names)
        found.update(self._ends.astype("<i8").tobytes())
        found.update(b"" if self.labels is None else self.labels.astype("<i8").tobytes())
        return found.digest()

    def _relative(self, number: int) -> str:
        start = 0 if number == 0 else int(self._ends[number - 1])
        return os.fsdecode(self._names[start : int(self._ends[number])])


def list_images(root: Path, source: str) -> Listing:
    """List every image of a folder. Subfolders that hold images, at any depth, are the classes.

    Hidden files are ignored. Symbolic links are followed, except to a folder that contains them. Folders that are
    nested too deep, that links reach in too many ways, or that are too many, are an error.

    Args:
        root: The folder.
        source: What the user named, for messages.

    Raises:
        InputError: If there is no such folder, it holds no images, or images both beside and inside
            subfolders.
    """
    if not os.path.exists(root):
        raise InputError(f"{source}: no such folder")
    if not os.path.isdir(root):
        raise InputError(f"{source}: expected a folder of images, found a file")
    here, folders = _entries(root)
    names = _Names()
    for name in here:
        names.add(name)
    walk, found = _Walk(root, source, names), os.stat(root)
    above = ((found.st_dev, found.st_ino),)
    classes: list[str] = []
    counts: list[int] = []
    for folder in folders:
        before = len(names)
        walk.add(folder, above)
        if len(names) > before:
            classes.append(text(folder))
            counts.append(len(names) - before)
    if here and classes:
        raise InputError(
            f"{source}: images lie both in the folder itself ({text(here[0])}, …) and in subfolders "
            f"({classes[0]}, …): put every image into a subfolder (its class), or "
            "all into one folder (no classes)"
        )
    if not len(names):
        raise InputError(f"{source}: no images found; expected files ending in {', '.join(EXTENSIONS)}")
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts) if classes else None
    return Listing(
        root, tuple(classes), labels, bytes(names.buffer), np.frombuffer(names.ends, dtype=np.int64)
    )


class _Names:
    def __init__(self) -> None:
        self.buffer, self.ends = bytearray(), array("q")

    def __len__(self) -> int:
        return len(self.ends)

    def add(self, name: str) -> None:
        self.buffer += os.fsencode(name)
        self.ends.append(len(self.buffer))


class _Walk:
    """Adds every image under folders to `names`, in the order of sorted paths.

    Links may lead anywhere: in circles, to one folder in many ways, or to the whole disk.
    """

    def __init__(self, root: Path, source: str, names: _Names) -> None:
        self.root, self.source, self.names = root, source, names
        self._listed = Counter[tuple[int, int]]()  # how often each folder was, by its device and number

    def add(self, relative: str, above: tuple[tuple[int, int], ...] = ()) -> None:
        """What is under a folder. above: the folders that it lies in; a link to one of them is passed over."""
        path = self.root / relative
        try:
            found = os.stat(path)
        except OSError as fault:
            raise _unlisted(path, fault) from None
        here = (found.st_dev, found.st_ino)
        if here in above:
            return
        self._listed[here] += 1
        self._check(relative, len(above), here)
        files, folders = _entries(path)
        inside = set(folders)
        for name in sorted(files + folders):
            if name in inside:
                self.add(os.path.join(relative, name), (*above, here))
            else:
                self.names.add(os.path.join(relative, name))

    def _check(self, relative: str, depth: int, here: tuple[int, int]) -> None:
        where = one_line(text(relative), _SHOWN)
        if depth > _DEEPEST:
            raise InputError(
                f"{self.source}: folders are nested more than {_DEEPEST} deep ({where}): is this the right folder?"
            )
        if self._listed[here] > _WAYS:
            raise InputError(
                f"{self.source}: links lead to one folder in more than {_WAYS} ways ({where}): remove links between folders"
            )
        if len(self._listed) > _FOLDERS:
            raise InputError(
                f"{self.source}: more than {_FOLDERS:,} folders: does a link lead to the whole disk? The last one was {where}"
            )


def _entries(path: Path) -> tuple[list[str], list[str]]:
    """(names of images, names of subfolders) directly in a folder, sorted, without hidden ones."""
    files, folders = [], []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                    folders.append(entry.name)
                elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                    files.append(entry.name)
    except OSError as fault:
        raise _unlisted(path, fault) from None
    return sorted(files), sorted(folders)


def _unlisted(path: Path, fault: OSError) -> InputError:
    return InputError(f"{one_line(text(str(path)), _SHOWN)}: this folder cannot be listed ({fault.strerror})")


def text(name: str) -> str:
    """A file name as text that can be printed and saved, whichever bytes it holds."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
