"""Files that are whole or absent: written under another name, synced to the disk, renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replace_file", "sync_folder", "whole"]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A name to write under; renamed to `path` when the block ends well, removed when it fails. No reader meets half a file.

    Processes that write the same file at once do not disturb each other: the last one stays.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        replace_file(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace_file(partial: Path, final: Path) -> None:
    """Sync `partial` to the disk and rename it to `final`."""
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(final)
    sync_folder(final.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
